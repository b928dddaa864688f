"""Keys and values kept between decoding steps.

The cache lies as the products of one decoding step read it: keys ``[B, N, H, S]`` and values
``[B, N, S, H]``, so that neither product transposes it. The hypotheses of a beam share one cache
and are never reordered in it; who wrote what is kept in a table of ancestry
(:func:`flax_transformer.nn.masks.make_ancestry_mask`).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from flax_transformer.array_types import Array, Float, Int


class KeyValues(NamedTuple):
    """The keys and values of one attention layer."""

    keys: Float[Array, "B N H S"]
    values: Float[Array, "B N S H"]


def init_key_values(
    batch_size: int, num_heads: int, head_dim: int, num_slots: int, *, dtype: DTypeLike
) -> KeyValues:
    """Make an empty cache of ``num_slots`` slots."""
    keys = jnp.zeros((batch_size, num_heads, head_dim, num_slots), dtype)
    return KeyValues(keys, keys.swapaxes(-1, -2))


def as_key_values(key: Float[Array, "B S N H"], value: Float[Array, "B S N H"]) -> KeyValues:
    """Lay whole projections out as a cache: slot s holds position s."""
    return KeyValues(key.transpose(0, 2, 3, 1), value.transpose(0, 2, 1, 3))


def write_key_values(
    cache: KeyValues,
    key: Float[Array, "B W N H"],
    value: Float[Array, "B W N H"],
    index: Int[Array, ""],
) -> KeyValues:
    """Write what the W rows of a beam computed at step ``index`` to slots index · W and following.

    The caller keeps ``index`` below the cache's number of steps: past it, XLA would clamp the
    position and overwrite the last slots.
    """
    step = as_key_values(key, value)
    start = index * key.shape[1]
    return KeyValues(
        jax.lax.dynamic_update_slice_in_dim(
            cache.keys, step.keys.astype(cache.keys.dtype), start, axis=3
        ),
        jax.lax.dynamic_update_slice_in_dim(
            cache.values, step.values.astype(cache.values.dtype), start, axis=2
        ),
    )
