"""Random decisions about single elements of a table, from a counter-based hash.

Each depends on the key, the element's row and its column alone: any part of a table can be drawn
without the rest of it, and comes out the same however the table is cut or spread over devices.
"""

import jax
import jax.numpy as jnp

from flax_transformer.array_types import Array, Bool, Key, UInt32


def keep_at(
    key: Key[Array, ""],
    keep_rate: float,
    rows: UInt32[Array, "..."],
    columns: UInt32[Array, "..."],
) -> Bool[Array, "..."]:
    """Decide for each element whether it is kept: with probability ``keep_rate``, independently.

    Args:
        key: typed random key.
        keep_rate: in [0, 1].
        rows: number of each element's row; must broadcast with ``columns``.
        columns: number of each element's column.

    >>> rows, columns = jnp.arange(99, dtype="uint32")[:, None], jnp.arange(99, dtype="uint32")
    >>> whole = keep_at(jax.random.key(0), 0.75, rows, columns)
    >>> part = keep_at(jax.random.key(0), 0.75, rows[7:], columns[:50])
    >>> bool(abs(whole.mean() - 0.75) < 0.02), bool((part == whole[7:, :50]).all())
    (True, True)
    """
    row_seed, column_seed = jax.random.bits(key, (2,), jnp.uint32)
    bits = _mix(_mix(rows + row_seed) ^ _mix(columns + column_seed))
    return bits < jnp.uint32(min(round(keep_rate * 2**32), 2**32 - 1))


def _mix(bits: UInt32[Array, "*shape"]) -> UInt32[Array, "*shape"]:
    """Spread every input bit over all output bits (the bijection "lowbias32" of Chris Wellons)."""
    bits = (bits ^ (bits >> 16)) * jnp.uint32(0x7FEB352D)
    bits = (bits ^ (bits >> 15)) * jnp.uint32(0x846CA68B)
    return bits ^ (bits >> 16)
