"""Tiles of a table of attention: which are worked on, and what holds for their elements.

The axes are those of :mod:`flax_transformer.nn.tile_passes`.
"""

import dataclasses
import functools
import math
import operator
from typing import NamedTuple

import jax.numpy as jnp

from flax_transformer.array_types import Array, Bool, Float, Int, Key
from flax_transformer.nn.random_bits import keep_at
from flax_transformer.nn.tile_layout import take_group, take_pairs, take_tiles


@dataclasses.dataclass(frozen=True, kw_only=True)
class TileConfig:
    """What is known of the table before its values are.

    Attributes:
        num_rows: queries of the whole table, T.
        num_columns: keys, S; no row attends to a column beyond them.
        first_row: number of the first row of the first query tile.
        has_spare_columns: whether a step may meet columns beyond ``num_columns``.
        causal: let row t attend to the columns up to and including t.
        dropout_rate: of the weights.
        product_dtype: of the operands of matrix products.
    """

    num_rows: int
    num_columns: int
    first_row: int = 0
    has_spare_columns: bool = False
    causal: bool = False
    dropout_rate: float = 0.0
    product_dtype: jnp.dtype


class Schedule(NamedTuple):
    """The steps, or one of them: the query tiles of a group attend to a key tile each.

    Attributes:
        group: of the query tiles.
        key_tile: one for each of them; M where there is none.
    """

    group: Int[Array, "*P"]
    key_tile: Int[Array, "*P X"]


class Conditions(NamedTuple):
    """What decides, besides :class:`TileConfig`, which row attends to which column.

    Attributes:
        mask: True where a row may attend to a column. Like a bias, it needs groups of one tile.
        query_segment_ids: rows attend to the columns with the same number only.
        key_segment_ids: of the columns; no row attends to 0.
        dropout_key: typed random key; None for no dropout.
    """

    mask: Bool[Array, "#Q #M #B #K #G #R #C"] | None = None
    query_segment_ids: Int[Array, "Q X B R"] | None = None
    key_segment_ids: Int[Array, "M B C"] | None = None
    dropout_key: Key[Array, ""] | None = None


class TileTerms(NamedTuple):
    """What is done to the logits and weights of a step; None for nothing.

    Attributes:
        bias: added to the logits.
        mask: where rows may attend to columns.
        keep: which weights dropout keeps: those it would keep in the table ``[B, N, T, S]``.
    """

    bias: Float[Array, "#X #B #K #G #R #C"] | None
    mask: Bool[Array, "#X #B #K #G #R #C"] | None
    keep: Bool[Array, "#X #B #K #G #R #C"] | None


def tile_terms(
    config: TileConfig,
    shape: tuple[int, ...],
    bias: Float[Array, "#Q #M #B #K #G #R #C"] | None,
    conditions: Conditions,
    step: Schedule,
) -> TileTerms:
    """Return what is done to tiles of ``shape`` (X, B, K, G, R, C) at a step."""
    rows, columns = _tile_positions(config, shape, step)
    return TileTerms(
        bias=None if bias is None else take_pairs(bias, *step),
        mask=_tile_mask(config, rows, columns, conditions, step),
        keep=_tile_keep_mask(config, shape, rows, columns, conditions.dropout_key),
    )


def _tile_positions(
    config: TileConfig, shape: tuple[int, ...], step: Schedule
) -> tuple[Int[Array, "X 1 1 1 R 1"], Int[Array, "X 1 1 1 1 C"]]:
    """Return the numbers of the rows and columns of the tiles of a step."""
    num_tiles, num_rows, num_columns = shape[0], *shape[-2:]
    row_tile = step.group * num_tiles + jnp.arange(num_tiles)
    rows = config.first_row + row_tile[:, None] * num_rows + jnp.arange(num_rows)
    columns = step.key_tile[:, None] * num_columns + jnp.arange(num_columns)
    return rows[:, None, None, None, :, None], columns[:, None, None, None, None, :]


def _tile_mask(
    config: TileConfig,
    rows: Int[Array, "X 1 1 1 R 1"],
    columns: Int[Array, "X 1 1 1 1 C"],
    conditions: Conditions,
    step: Schedule,
) -> Bool[Array, "#X #B #K #G #R #C"] | None:
    masks = []
    if conditions.mask is not None:
        masks.append(take_pairs(conditions.mask, *step))
    if conditions.key_segment_ids is not None:
        of_columns = take_tiles(conditions.key_segment_ids, step.key_tile)
        of_columns = of_columns[:, :, None, None, None, :]
        masks.append(of_columns != 0)
        if conditions.query_segment_ids is not None:
            of_rows = take_group(conditions.query_segment_ids, step.group)
            masks.append(of_rows[:, :, None, None, :, None] == of_columns)
    if config.causal:
        masks.append(rows >= columns)
    if config.has_spare_columns:
        masks.append(columns < config.num_columns)
    return functools.reduce(operator.and_, masks) if masks else None


def _tile_keep_mask(
    config: TileConfig,
    shape: tuple[int, ...],
    rows: Int[Array, "X 1 1 1 R 1"],
    columns: Int[Array, "X 1 1 1 1 C"],
    dropout_key: Key[Array, ""] | None,
) -> Bool[Array, "X B K G R C"] | None:
    if dropout_key is None or config.dropout_rate == 0.0:
        return None
    tables = jnp.arange(math.prod(shape[1:4])).reshape(1, *shape[1:4], 1, 1)
    return keep_at(
        dropout_key,
        1.0 - config.dropout_rate,
        (tables * config.num_rows + rows).astype(jnp.uint32),
        columns.astype(jnp.uint32),
    )
