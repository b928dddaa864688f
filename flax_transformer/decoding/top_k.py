"""The k largest of many, exact, by blocks."""

import jax
import jax.numpy as jnp

from flax_transformer.array_types import Array, Float, Int

_BLOCK_SIZE = 64


def top_k(values: Float[Array, "*B V"], k: int) -> tuple[Float[Array, "*B K"], Int[Array, "*B K"]]:
    """Return the ``k`` largest of the last dimension in falling order, and their indices.

    Equal to :func:`jax.lax.top_k`, ties included, but several times faster on a CPU for a
    vocabulary: the k largest lie in the k blocks of the largest maxima, so that only the maxima
    and k blocks need sorting.

    >>> top_k(jnp.array([3.0, 1.0, 4.0, 1.0, 5.0]), 2)
    (Array([5., 4.], dtype=float32), Array([4, 2], dtype=int32))
    """
    size = values.shape[-1]
    num_blocks = -(-size // _BLOCK_SIZE)
    if num_blocks <= k:
        best, indices = jax.lax.top_k(values, k)
        return best, indices
    padding = [(0, 0)] * (values.ndim - 1) + [(0, num_blocks * _BLOCK_SIZE - size)]
    padded = jnp.pad(values, padding, constant_values=-jnp.inf)
    blocks = padded.reshape(*values.shape[:-1], num_blocks, _BLOCK_SIZE)
    _, block_ids = jax.lax.top_k(blocks.max(axis=-1), k)
    # In rising order, so that of equal values the one of the lowest index comes first.
    block_ids = jnp.sort(block_ids, axis=-1)
    indices = block_ids[..., None] * _BLOCK_SIZE + jnp.arange(_BLOCK_SIZE)
    indices = indices.reshape(*values.shape[:-1], k * _BLOCK_SIZE)
    # Single values are gathered: gathering whole blocks is several times slower on a CPU.
    candidates = jnp.take_along_axis(values, jnp.minimum(indices, size - 1), axis=-1)
    best, places = jax.lax.top_k(jnp.where(indices < size, candidates, -jnp.inf), k)
    return best, jnp.take_along_axis(indices, places, axis=-1)
