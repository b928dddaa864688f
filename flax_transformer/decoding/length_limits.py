"""How long an output may be, in tokens and relative to the source."""

import dataclasses
import math

import jax.numpy as jnp

from flax_transformer.array_types import Array, Int
from flax_transformer.errors import InputError

_ROUNDING = 1e-3
"""What a product of a ratio and a length may lie beside a whole number and count as it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LengthLimits:
    """How many tokens an output has: with the end token, without the start token.

    Attributes:
        max_length: tokens at most; an output of this length may lack the end token.
        min_length: tokens at least.
        max_length_ratio: tokens at most for each token of the source, whose end token counts too;
            rounded down, but one token at least. None for ``max_length`` alone.
        min_length_ratio: tokens at least for each token of the source, rounded up. Where the two
            ends contradict each other, the maximum holds. None for ``min_length`` alone.
    """

    max_length: int = 128
    min_length: int = 0
    max_length_ratio: float | None = None
    min_length_ratio: float | None = None

    def __post_init__(self) -> None:
        """Refuse lengths that cannot be met."""
        if self.max_length < 1:
            raise InputError(f"max_length must be at least 1, got {self.max_length}.")
        if not 0 <= self.min_length <= self.max_length:
            raise InputError(
                f"min_length must lie between 0 and max_length = {self.max_length}, "
                f"got {self.min_length}."
            )
        longest, shortest = self.max_length_ratio, self.min_length_ratio
        if longest is not None and not 0.0 < longest < math.inf:
            raise InputError(f"max_length_ratio must be positive and finite, got {longest}.")
        if shortest is not None and not 0.0 <= shortest < math.inf:
            raise InputError(f"min_length_ratio must be finite and not negative, got {shortest}.")
        if longest is not None and shortest is not None and shortest > longest:
            raise InputError(
                f"min_length_ratio must be at most max_length_ratio = {longest}, got {shortest}."
            )


def relative_lengths(
    limits: LengthLimits, source_lengths: Int[Array, " B"]
) -> tuple[Int[Array, " B"] | None, Int[Array, " B"] | None]:
    """Return the lengths at least and at most that each source allows; None without a ratio.

    >>> limits = LengthLimits(max_length=8, min_length_ratio=0.5, max_length_ratio=1.5)
    >>> relative_lengths(limits, jnp.array([1, 3, 7]))
    (Array([1, 2, 4], dtype=int32), Array([1, 4, 8], dtype=int32))
    """
    longest = None
    if limits.max_length_ratio is not None:
        product = jnp.floor(limits.max_length_ratio * source_lengths + _ROUNDING)
        longest = jnp.clip(product.astype(jnp.int32), 1, limits.max_length)
    if limits.min_length_ratio is None:
        return None, longest
    product = jnp.ceil(limits.min_length_ratio * source_lengths - _ROUNDING)
    return jnp.minimum(product.astype(jnp.int32), limits.max_length), longest
