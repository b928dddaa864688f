"""What hypotheses of different lengths are compared by."""

from typing import Literal, TypeAlias

import jax.numpy as jnp

from flax_transformer.array_types import Array, Float, Int

LengthNormalization: TypeAlias = Literal["power", "gnmt", "none"]
"""``"power"`` divides by length^α, ``"gnmt"`` by ((5 + length) / 6)^α (Wu et al., 2016, arXiv
1609.08144, equation 14), ``"none"`` by 1."""


def length_divisor(
    lengths: Int[Array, "*B"], *, alpha: float, normalization: LengthNormalization
) -> Float[Array, "*B"]:
    """Return what the log-probability of a hypothesis of so many tokens is divided by.

    >>> length_divisor(jnp.array(7), alpha=1.0, normalization="gnmt")
    Array(2., dtype=float32)
    """
    base = lengths.astype(jnp.float32)
    if normalization == "none":
        return jnp.ones_like(base)
    if normalization == "gnmt":
        base = (5.0 + base) / 6.0
    return base**alpha


def best_score_to_come(
    log_probs: Float[Array, "*B"],
    next_lengths: Int[Array, "*#B"],
    max_lengths: Int[Array, "*#B"],
    *,
    alpha: float,
    normalization: LengthNormalization,
) -> Float[Array, "*B"]:
    """Return a bound of the scores of all continuations of hypotheses of ``log_probs``.

    Log-probabilities are not above 0 and only fall, and the divisor is monotone in the length: of
    the lengths to come, the shortest or the longest gives the greatest score to the present
    log-probability, whatever the sign of α is.

    >>> lengths = jnp.array(1), jnp.array(4)
    >>> for alpha in (1.0, -1.0):
    ...     print(best_score_to_come(jnp.array(-2.0), *lengths, alpha=alpha, normalization="power"))
    -0.5
    -2.0
    """
    divisors = (
        length_divisor(lengths, alpha=alpha, normalization=normalization)
        for lengths in (next_lengths, max_lengths)
    )
    return log_probs / jnp.maximum(*divisors)
