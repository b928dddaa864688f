"""Attention over a chosen part of its table, tile by tile."""

from flax_transformer.array_types import Array, Bool, Float, Int, Key
from flax_transformer.errors import InputError
from flax_transformer.nn.tile_layout import (
    cut_keys,
    cut_pairs,
    cut_queries,
    cut_segment_ids,
    join_queries,
)
from flax_transformer.nn.tile_passes import attend_by_tiles
from flax_transformer.nn.tiles import Conditions, Schedule, TileConfig


def tiled_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K H"],
    mask: Bool[Array, "#B #N #T #S"] | None = None,
    *,
    bias: Float[Array, "#B #N #T #S"] | None = None,
    query_segment_ids: Int[Array, "B T"] | None = None,
    key_segment_ids: Int[Array, "B S"] | None = None,
    dropout_key: Key[Array, ""] | None = None,
    scale: float | None = None,
    config: TileConfig,
    row_shape: tuple[int, int, int],
    column_shape: tuple[int, int],
    schedule: Schedule,
) -> Float[Array, "B T N H"]:
    """Let queries attend to the keys with which ``schedule`` brings them together.

    The first arguments are those of :func:`.chunked_attention.chunked_attention`.

    Args:
        query: one vector for each position and head that attends.
        key: one vector for each position and head that is attended to.
        value: what is averaged.
        mask: True where a query may attend to a key; for one query tile a group.
        bias: added to the logits; for one query tile a group.
        query_segment_ids: queries attend to the keys with the same number only.
        key_segment_ids: of the keys; 0 is attended to by none.
        dropout_key: typed random key; None for no dropout.
        scale: of the logits; None for ``1 / √H``.
        config: of the table.
        row_shape: number of groups of query tiles, of tiles in each, and of rows in each tile.
        column_shape: number of key tiles, and of columns in each.
        schedule: no query tile may meet a key tile twice.

    Raises:
        InputError: the query heads cannot share the key heads evenly.
    """
    num_queries, num_heads, head_dim = query.shape[1:]
    num_key_heads = key.shape[2]
    if num_heads % num_key_heads:
        raise InputError(
            f"the number of query heads must be a multiple of that of key heads, {num_key_heads}, "
            f"got {num_heads}."
        )
    group_size = num_heads // num_key_heads

    def cut(pairs: Array | None) -> Array | None:
        if pairs is None:
            return None
        rows = (row_shape[0], row_shape[2])
        return cut_pairs(pairs, num_key_heads, group_size, rows, column_shape)

    def cut_ids(segment_ids: Array | None, shape: tuple[int, ...]) -> Array | None:
        return None if segment_ids is None else cut_segment_ids(segment_ids, shape)

    conditions = Conditions(
        mask=cut(mask),
        query_segment_ids=cut_ids(query_segment_ids, row_shape),
        key_segment_ids=cut_ids(key_segment_ids, column_shape),
        dropout_key=dropout_key,
    )
    query = query * (head_dim**-0.5 if scale is None else scale)
    attended = attend_by_tiles(
        config,
        cut_queries(query, num_key_heads, row_shape),
        cut_keys(key, column_shape),
        cut_keys(value, column_shape),
        cut(bias),
        schedule,
        conditions,
    )
    return join_queries(attended, num_queries).astype(value.dtype)
