"""A logits processor that leaves one place of every output no choice."""

import dataclasses

import jax.numpy as jnp

from flax_transformer.array_types import Array, Float, Int
from flax_transformer.decoding.logits_processors import check_in_vocabulary, check_token_ids
from flax_transformer.errors import InputError


@dataclasses.dataclass(frozen=True)
class ForcedToken:
    """Let this token stand at this place, at no cost: its probability there counts as 1.

    Public translation models are searched so, with their end token at the last place that the
    length allows; :class:`~flax_transformer.decoding.token_constraints.ForcedPrefix` counts the
    model's own probabilities instead.

    >>> forced = ForcedToken(2, place=3)
    >>> forced(jnp.full((1, 1, 3), -1.0), jnp.zeros((1, 1, 4), int), jnp.array(3))
    Array([[[-inf, -inf,   0.]]], dtype=float32)
    >>> forced(jnp.full((1, 1, 3), -1.0), jnp.zeros((1, 1, 4), int), jnp.array(2))
    Array([[[-1., -1., -1.]]], dtype=float32)

    Attributes:
        token_id: the token.
        place: tokens that are before it.
    """

    token_id: int
    place: int

    def __post_init__(self) -> None:
        """Refuse what cannot be a token and its place."""
        check_token_ids("token_id", (self.token_id,))
        if self.place < 0:
            raise InputError(f"place must be at least 0, got {self.place}.")

    def __call__(
        self,
        log_probs: Float[Array, "B W V"],
        tokens: Int[Array, "B W T"],
        num_tokens: Int[Array, ""],
    ) -> Float[Array, "B W V"]:
        """Return ``log_probs``, at the place with 0 for the token and -inf for every other."""
        check_in_vocabulary("token_id", (self.token_id,), log_probs.shape[-1])
        is_token = jnp.arange(log_probs.shape[-1]) == self.token_id
        forced = jnp.where(is_token, 0.0, -jnp.inf).astype(log_probs.dtype)
        return jnp.where(num_tokens == self.place, forced, log_probs)
