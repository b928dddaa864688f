"""A logits processor for models that end their outputs by one of several tokens."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from flax_transformer.array_types import Array, Float, Int
from flax_transformer.decoding.logits_processors import (
    check_in_vocabulary,
    check_token_ids,
    make_tuple,
)
from flax_transformer.errors import InputError


@dataclasses.dataclass(frozen=True)
class EndTokens:
    """Let further tokens end an output, as models do that end turns, messages and texts.

    The end token of the search gets the probability that any of them comes, and stands for it.

    >>> ends = EndTokens(2, other_ids=(0,))
    >>> probs = jnp.array([[[0.25, 0.25, 0.5]]])
    >>> log_probs = ends(jnp.log(probs), jnp.zeros((1, 1, 4), int), jnp.array(3))
    >>> [round(float(prob), 2) for prob in jnp.exp(log_probs)[0, 0]]
    [0.0, 0.25, 0.75]

    Attributes:
        end_id: end token of the search.
        other_ids: what ends an output, too.
    """

    end_id: int
    other_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse what cannot be tokens."""
        make_tuple(self, "other_ids")
        check_token_ids("end_id", (self.end_id,))
        check_token_ids("other_ids", self.other_ids)
        if self.end_id in self.other_ids:
            raise InputError(f"other_ids must not hold end_id, got {self.end_id} in both.")

    def __call__(
        self,
        log_probs: Float[Array, "B W V"],
        tokens: Int[Array, "B W T"],
        num_tokens: Int[Array, ""],
    ) -> Float[Array, "B W V"]:
        """Return ``log_probs`` with -inf for the others, and the sum of all for the end token."""
        vocab_size = log_probs.shape[-1]
        check_in_vocabulary("end_id", (self.end_id,), vocab_size)
        check_in_vocabulary("other_ids", self.other_ids, vocab_size)
        end_ids = np.array((self.end_id, *self.other_ids))
        any_end = jax.nn.logsumexp(log_probs[..., end_ids], axis=-1, keepdims=True)
        # Rounding may carry the sum of probabilities beyond 1, and a search relies on it that
        # scores fall.
        any_end = jnp.minimum(any_end, 0.0).astype(log_probs.dtype)
        ids = np.arange(vocab_size)
        others = jnp.where(np.isin(ids, end_ids), -jnp.inf, log_probs)
        return jnp.where(ids == self.end_id, any_end, others)
