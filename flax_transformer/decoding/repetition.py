"""Logits processors against repetition."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from flax_transformer.array_types import Array, Float, Int
from flax_transformer.decoding.logits_processors import set_logits
from flax_transformer.errors import InputError


@dataclasses.dataclass(frozen=True)
class NoRepeatNgram:
    """Never generate the same n tokens in a row twice (Paulus et al., 2018, arXiv 1705.04304).

    >>> no_repeat = NoRepeatNgram(2)
    >>> no_repeat(jnp.zeros((1, 1, 3)), jnp.array([[[1, 2, 1, 0]]]), jnp.array(3))
    Array([[[  0.,   0., -inf]]], dtype=float32)

    Attributes:
        size: n; with 1 no token comes twice.
    """

    size: int

    def __post_init__(self) -> None:
        """Refuse an n-gram of no tokens."""
        if self.size < 1:
            raise InputError(f"size must be at least 1, got {self.size}.")

    def __call__(
        self,
        log_probs: Float[Array, "B W V"],
        tokens: Int[Array, "B W T"],
        num_tokens: Int[Array, ""],
    ) -> Float[Array, "B W V"]:
        """Return ``log_probs`` with -inf for each token that would complete an n-gram again."""
        num_read = self.size - 1
        num_windows = tokens.shape[-1] - num_read
        if num_windows < 1:
            return log_probs
        last = jax.lax.dynamic_slice_in_dim(tokens, num_tokens - num_read, num_read, axis=-1)
        # Window w holds tokens w to w + n - 2, and token w + n - 1 followed it.
        is_repeated = num_read + jnp.arange(num_windows) < num_tokens
        for offset in range(num_read):
            window = tokens[..., offset : offset + num_windows]
            is_repeated = is_repeated & (window == last[..., offset, None])
        ids = jnp.where(is_repeated, tokens[..., num_read:], log_probs.shape[-1])
        return set_logits(log_probs, ids, -jnp.inf)


@dataclasses.dataclass(frozen=True)
class RepetitionPenalty:
    """Multiply the log-probability of each token that is there already by ``penalty``.

    The rule of CTRL (Keskar et al., 2019, arXiv 1909.05858, section 4.1) for log-probabilities,
    which are negative: a penalty above 1 makes repetition less probable, one below 1 more so.
    Scores are of what the search maximises, so that they contain the penalty.

    >>> penalize = RepetitionPenalty(2.0)
    >>> penalize(-1.5 * jnp.ones((1, 1, 3)), jnp.array([[[1, 1, 0]]]), jnp.array(2))
    Array([[[-1.5, -3. , -1.5]]], dtype=float32)

    Attributes:
        penalty: a positive factor.
    """

    penalty: float

    def __post_init__(self) -> None:
        """Refuse what is no factor."""
        if not 0.0 < self.penalty < math.inf:
            raise InputError(f"penalty must be positive and finite, got {self.penalty}.")

    def __call__(
        self,
        log_probs: Float[Array, "B W V"],
        tokens: Int[Array, "B W T"],
        num_tokens: Int[Array, ""],
    ) -> Float[Array, "B W V"]:
        """Return ``log_probs`` with those of the tokens so far multiplied."""
        vocab_size = log_probs.shape[-1]
        is_there = jnp.arange(tokens.shape[-1]) < num_tokens
        # Padding may be negative, where indices would count from the end.
        ids = jnp.where(is_there & (tokens >= 0), tokens, vocab_size)
        there = jnp.take_along_axis(log_probs, jnp.minimum(ids, vocab_size - 1), axis=-1)
        # Set, not multiplied in place: a token that came twice is penalised once.
        return set_logits(log_probs, ids, self.penalty * there)
