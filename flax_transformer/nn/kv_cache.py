"""Keys and values kept between decoding steps.

The cache lies as the products of one decoding step read it: keys ``[B, K, H, S]`` and values
``[B, K, S, H]``, so that neither product transposes it. The hypotheses of a beam share one cache
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

    keys: Float[Array, "B K H S"]
    values: Float[Array, "B K S H"]


def init_key_values(
    batch_size: int, num_heads: int, head_dim: int, num_slots: int, *, dtype: DTypeLike
) -> KeyValues:
    """Make an empty cache of ``num_slots`` slots."""
    keys = jnp.zeros((batch_size, num_heads, head_dim, num_slots), dtype)
    return KeyValues(keys, keys.swapaxes(-1, -2))


def as_key_values(key: Float[Array, "B S K H"], value: Float[Array, "B S K H"]) -> KeyValues:
    """Lay whole projections out as a cache: slot s holds position s."""
    return KeyValues(key.transpose(0, 2, 3, 1), value.transpose(0, 2, 1, 3))


def write_key_values(
    cache: KeyValues,
    key: Float[Array, "B W K H"],
    value: Float[Array, "B W K H"],
    start: Int[Array, ""],
) -> KeyValues:
    """Write what the W rows of a beam computed at one step to the slots from ``start``.

    The caller keeps ``start`` below the cache's end: past it, XLA would clamp the position and
    overwrite the last slots.
    """
    step = as_key_values(key, value)
    return KeyValues(
        jax.lax.dynamic_update_slice_in_dim(
            cache.keys, step.keys.astype(cache.keys.dtype), start, axis=3
        ),
        jax.lax.dynamic_update_slice_in_dim(
            cache.values, step.values.astype(cache.values.dtype), start, axis=2
        ),
    )


def write_prompt(cache: KeyValues, prompt: KeyValues) -> KeyValues:
    """Write the keys and values of a prompt to the first slots."""
    return KeyValues(
        cache.keys.at[..., : prompt.keys.shape[-1]].set(prompt.keys.astype(cache.keys.dtype)),
        cache.values.at[:, :, : prompt.values.shape[2]].set(
            prompt.values.astype(cache.values.dtype)
        ),
    )


def grow_key_values(cache: KeyValues, num_slots: int) -> KeyValues:
    """Add ``num_slots`` empty slots at the end.

    >>> cache = init_key_values(1, 1, 2, 3, dtype=jnp.float32)
    >>> [leaf.shape for leaf in grow_key_values(cache, 4)]
    [(1, 1, 2, 7), (1, 1, 7, 2)]
    """
    untouched = (0, 0)
    return KeyValues(
        jnp.pad(cache.keys, [untouched, untouched, untouched, (0, num_slots)]),
        jnp.pad(cache.values, [untouched, untouched, (0, num_slots), untouched]),
    )


def take_key_values(cache: KeyValues, slots: Int[Array, "B P"]) -> KeyValues:
    """Return the cache of some slots of each row, in the order given.

    >>> cache = init_key_values(1, 1, 2, 3, dtype=jnp.float32)
    >>> [leaf.shape for leaf in take_key_values(cache, jnp.array([[2, 0]]))]
    [(1, 1, 2, 2), (1, 1, 2, 2)]
    """
    return KeyValues(
        jnp.take_along_axis(cache.keys, slots[:, None, None, :], axis=3),
        jnp.take_along_axis(cache.values, slots[:, None, :, None], axis=2),
    )
