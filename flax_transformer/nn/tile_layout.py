"""How queries, keys and tables of pairs are cut into tiles, and how tiles are read and written.

The axes are those of :mod:`flax_transformer.nn.tile_passes`.
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Shaped

from flax_transformer.array_types import Array, Float, Int


def pad_axis(array: Array, axis: int, size: int) -> Array:
    """Append zeros to one axis, up to ``size``."""
    widths = [(0, 0)] * array.ndim
    widths[axis] = (0, size - array.shape[axis])
    return jnp.pad(array, widths)


def cut_queries(
    query: Float[Array, "B T N H"], num_key_heads: int, shape: tuple[int, int, int]
) -> Float[Array, "Q X B K G R H"]:
    """Cut queries into tiles of ``shape`` (Q, X, R), with rows of zeros at the end."""
    num_groups, num_tiles, num_rows = shape
    batch_size, _, num_heads, head_dim = query.shape
    padded = pad_axis(query, 1, num_groups * num_tiles * num_rows)
    grouped = (num_key_heads, num_heads // num_key_heads)
    return padded.reshape(batch_size, *shape, *grouped, head_dim).transpose(1, 2, 0, 4, 5, 3, 6)


def join_queries(tiles: Float[Array, "Q X B K G R H"], length: int) -> Float[Array, "B T N H"]:
    """Undo :func:`cut_queries`, for ``length`` rows."""
    rows = tiles.transpose(2, 0, 1, 5, 3, 4, 6)
    batch_size, num_groups, num_tiles, num_rows, num_key_heads, group_size, head_dim = rows.shape
    shape = (batch_size, num_groups * num_tiles * num_rows, num_key_heads * group_size, head_dim)
    return rows.reshape(shape)[:, :length]


def cut_keys(key: Float[Array, "B S K H"], shape: tuple[int, int]) -> Float[Array, "M B K C H"]:
    """Cut keys, or values, into tiles of ``shape`` (M, C), with columns of zeros at the end."""
    batch_size, _, num_heads, head_dim = key.shape
    padded = pad_axis(key, 1, shape[0] * shape[1])
    return padded.reshape(batch_size, *shape, num_heads, head_dim).transpose(1, 0, 3, 2, 4)


def cut_segment_ids(
    segment_ids: Int[Array, "B S"], shape: tuple[int, ...]
) -> Int[Array, "*tiles B C"]:
    """Cut segment ids into tiles of ``shape``, ``(*tiles, C)``; those added are 0."""
    padded = pad_axis(segment_ids, 1, math.prod(shape))
    return jnp.moveaxis(padded.reshape(-1, *shape), 0, -2)


def cut_pairs(
    pairs: Shaped[Array, "#B #N #T #S"],
    num_key_heads: int,
    group_size: int,
    row_tiles: tuple[int, int],
    column_tiles: tuple[int, int],
) -> Shaped[Array, "#Q #M #B #K #G #R #C"]:
    """Cut a mask or bias into tiles; where it is broadcast along an axis, it stays so.

    Args:
        pairs: what each row has for each column.
        num_key_heads: K.
        group_size: G.
        row_tiles: Q and R.
        column_tiles: M and C.
    """
    batch_size, num_heads, num_rows, num_columns = pairs.shape
    heads = (1, 1) if num_heads == 1 else (num_key_heads, group_size)
    rows = (1, 1) if num_rows == 1 else row_tiles
    columns = (1, 1) if num_columns == 1 else column_tiles
    padded = pad_axis(pad_axis(pairs, 2, math.prod(rows)), 3, math.prod(columns))
    return padded.reshape(batch_size, *heads, *rows, *columns).transpose(3, 5, 0, 1, 2, 4, 6)


def take_group(array: Array, group: Int[Array, ""]) -> Array:
    """Return what ``array``, ``[Q, ...]``, holds of one group."""
    return jax.lax.dynamic_index_in_dim(array, group, keepdims=False)


def put_group(array: Array, new: Array, group: Int[Array, ""]) -> Array:
    """Replace what ``array``, ``[Q, ...]``, holds of one group."""
    return jax.lax.dynamic_update_index_in_dim(array, new, group, 0)


def take_tiles(array: Array, key_tile: Int[Array, " X"]) -> Array:
    """Return key tiles of ``array``, ``[M, ...]``; any one in place of one that there is not."""
    if key_tile.shape == (1,):  # A slice costs less than a gather.
        return jax.lax.dynamic_slice_in_dim(array, key_tile[0], 1)
    return array.at[key_tile].get(mode="clip")


def add_to_tiles(array: Array, terms: Array, key_tile: Int[Array, " X"]) -> Array:
    """Add to key tiles of ``array``, ``[M, ...]``; where there is none, terms must be zero."""
    if key_tile.shape == (1,):
        terms = terms + take_tiles(array, key_tile)
        return jax.lax.dynamic_update_slice_in_dim(array, terms, key_tile[0], 0)
    return array.at[key_tile].add(terms, mode="drop")


def take_pairs(
    pairs: Shaped[Array, "#Q #M #B #K #G #R #C"], group: Int[Array, ""], key_tile: Int[Array, "1"]
) -> Shaped[Array, "1 #B #K #G #R #C"]:
    """Return the tile of a mask or bias for groups of one tile.

    Where ``pairs`` is the same for all tiles of an axis it has one, and the slice ends up there.
    """
    start = (group, key_tile[0], 0, 0, 0, 0, 0)
    return jax.lax.dynamic_slice(pairs, start, (1, 1, *pairs.shape[2:]))[0]


def add_to_pairs(
    pairs: Float[Array, "#Q #M #B #K #G #R #C"],
    terms: Float[Array, "1 B K G R C"],
    group: Int[Array, ""],
    key_tile: Int[Array, "1"],
) -> Float[Array, "#Q #M #B #K #G #R #C"]:
    """Add to a tile, as :func:`take_pairs` finds it, the sums of what it was broadcast to."""
    tile = take_pairs(pairs, group, key_tile)
    axes = [axis for axis in range(terms.ndim) if tile.shape[axis] < terms.shape[axis]]
    tile = tile + terms.sum(axes, keepdims=True)
    return jax.lax.dynamic_update_slice(pairs, tile[None], (group, key_tile[0], 0, 0, 0, 0, 0))
