"""Residual connections with normalisation (section 5.4 and figure 1 of arXiv 1706.03762)."""

from collections.abc import Callable

import flax.linen as nn

from flax_transformer.array_types import Array, Float
from flax_transformer.nn.dropout import Dropout
from flax_transformer.nn.normalization import Normalization, make_norm


class Residual(nn.Module):
    """Add & Norm around a sub-layer, with dropout on the sub-layer's output (section 5.4).

    Attributes:
        pre_norm: see :class:`.layer_config.LayerConfig`.
        norm_kind: kind of normalisation.
        norm_epsilon: of the normalisation.
        dropout_rate: of the sub-layer's output.
    """

    pre_norm: bool
    norm_kind: Normalization
    norm_epsilon: float
    dropout_rate: float

    def setup(self) -> None:
        """Declare the normalisation and the dropout."""
        self.norm = make_norm(self.norm_kind, self.norm_epsilon)
        self.dropout = Dropout(self.dropout_rate)

    def __call__(
        self,
        inputs: Float[Array, "*B D"],
        sublayer: Callable[[Float[Array, "*B D"]], Float[Array, "*B D"]],
        *,
        deterministic: bool,
    ) -> Float[Array, "*B D"]:
        """Return ``norm(x + dropout(f(x)))``, or ``x + dropout(f(norm(x)))`` with ``pre_norm``."""
        if self.pre_norm:
            outputs = sublayer(self.norm(inputs))
            return inputs + self.dropout(outputs, deterministic=deterministic)
        outputs = self.dropout(sublayer(inputs), deterministic=deterministic)
        return self.norm(inputs + outputs)
