"""The position-wise feed-forward network (section 3.3 of arXiv 1706.03762) and its variants."""

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from flax_transformer.array_types import Array, Float
from flax_transformer.nn.dropout import Dropout
from flax_transformer.nn.linear import Linear
from flax_transformer.parallel.activation_sharding import constrain

Activation: TypeAlias = Literal["relu", "gelu", "gelu_tanh", "silu"]


def _gelu_exact(inputs: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    return jax.nn.gelu(inputs, approximate=False)


ACTIVATIONS: Mapping[Activation, Callable[[Array], Array]] = {
    "relu": jax.nn.relu,
    "gelu": _gelu_exact,
    "gelu_tanh": jax.nn.gelu,
    "silu": jax.nn.silu,
}
"""Activation functions by name; ``gelu_tanh`` is the approximation by tanh."""


class FeedForward(nn.Module):
    """Two linear maps with an activation between them, the same for every position.

    Plain: ``activation(x W1 + b1) W2 + b2`` (equation 2 of the paper). Gated:
    ``(activation(x Wg + bg) * (x W1 + b1)) W2 + b2`` (Shazeer, arXiv 2002.05202, without biases).

    Attributes:
        hidden_dim: size of the hidden layer, F.
        activation: name of the activation.
        gated: multiply the hidden layer by an activated gate.
        use_bias: add the biases.
        dropout_rate: of the hidden layer.
        dtype: of the result and of the hidden layer.
        product_dtype: of the operands of matrix products.
    """

    hidden_dim: int
    activation: Activation = "relu"
    gated: bool = False
    use_bias: bool = True
    dropout_rate: float = 0.0
    dtype: DTypeLike = jnp.float32
    product_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "*B D"], *, deterministic: bool
    ) -> Float[Array, "*B D"]:
        """Transform each position of ``inputs``."""
        activate = ACTIVATIONS[self.activation]

        def linear(features: int, name: str) -> Linear:
            return Linear(
                (features,),
                use_bias=self.use_bias,
                dtype=self.dtype,
                product_dtype=self.product_dtype,
                name=name,
            )

        hidden = linear(self.hidden_dim, "hidden")(inputs)
        if self.gated:
            hidden = activate(linear(self.hidden_dim, "gate")(inputs)) * hidden
        else:
            hidden = activate(hidden)
        hidden = constrain(hidden, "batch", "length", "mlp")
        hidden = Dropout(self.dropout_rate)(hidden, deterministic=deterministic)
        return linear(inputs.shape[-1], "output")(hidden)
