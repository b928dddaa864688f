"""Dropout (Srivastava et al., 2014) with masks from a counter-based hash.

A mask needs one random word an element. The words of :func:`jax.random.bits` are of cryptographic
strength and their making takes a third of a training step on a CPU; a hash of the element's index,
seeded from the key, is made in the same loop that multiplies by the mask.
"""

import flax.linen as nn
import jax
import jax.numpy as jnp

from flax_transformer.array_types import Array, Bool, Float, Key
from flax_transformer.nn.random_bits import keep_at


def random_keep_mask(
    key: Key[Array, ""], keep_rate: float, shape: tuple[int, ...]
) -> Bool[Array, "*shape"]:
    """Draw a mask whose elements are True with probability ``keep_rate``, independently.

    The element at row r (all dimensions but the last) and column c depends on the key, r and c
    alone, so that the mask is the same however the array is sharded.

    >>> mask = random_keep_mask(jax.random.key(0), 0.75, (100, 100))
    >>> bool(abs(mask.mean() - 0.75) < 0.02)
    True
    """
    rows_shape = (*shape[:-1], 1)
    row = jnp.zeros(rows_shape, jnp.uint32)
    for axis, size in enumerate(rows_shape[:-1]):
        row = row * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, rows_shape, axis)
    column = jnp.arange(shape[-1], dtype=jnp.uint32)
    column = column.reshape((1,) * (len(shape) - 1) + (shape[-1],))
    return keep_at(key, keep_rate, row, column)


def dropout(
    inputs: Float[Array, "*shape"], rate: float, key: Key[Array, ""]
) -> Float[Array, "*shape"]:
    """Set each element to zero with probability ``rate`` and divide the others by ``1 - rate``."""
    if rate == 0.0:
        return inputs
    keep = random_keep_mask(key, 1.0 - rate, inputs.shape)
    return jnp.where(keep, inputs / (1.0 - rate), jnp.zeros_like(inputs))


class Dropout(nn.Module):
    """Dropout with a key from the stream ``"dropout"``; the identity when ``deterministic``.

    Attributes:
        rate: probability that an element is set to zero, in [0, 1).
    """

    rate: float

    @nn.compact
    def __call__(
        self, inputs: Float[Array, "*shape"], *, deterministic: bool
    ) -> Float[Array, "*shape"]:
        """Return ``inputs`` with elements dropped."""
        if deterministic or self.rate == 0.0:
            return inputs
        return dropout(inputs, self.rate, self.make_rng("dropout"))
