"""Attention between blocks of long inputs, at a cost that grows with the length alone."""

import dataclasses
import functools
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from flax_transformer.array_types import Array, Bool, Float, Int, Key
from flax_transformer.errors import InputError
from flax_transformer.nn.block_sparse_pattern import BlockSparseConfig, block_pattern
from flax_transformer.nn.chunked_attention import CHUNK_SIZE
from flax_transformer.nn.schedules import schedule_pairs, schedule_pattern, split_evenly
from flax_transformer.nn.tiled_attention import tiled_attention
from flax_transformer.nn.tiles import TileConfig

BLOCKS_PER_STEP = 8
"""So that what a step works on fits the cache of a core."""


def block_sparse_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B T K H"],
    value: Float[Array, "B T K H"],
    config: BlockSparseConfig,
    *,
    query_segment_ids: Int[Array, "B T"] | None = None,
    key_segment_ids: Int[Array, "B T"] | None = None,
    causal: bool = False,
    scale: float | None = None,
    dropout_rate: float = 0.0,
    dropout_key: Key[Array, ""] | None = None,
    product_dtype: DTypeLike | None = None,
    blocks_per_step: int = BLOCKS_PER_STEP,
) -> Float[Array, "B T N H"]:
    """Return dot-product attention under :func:`.block_sparse_pattern.block_sparse_mask`.

    Of the products of dense attention only those of blocks that attend to each other are computed,
    so time and memory grow linearly with T. Rounding apart, results and gradients are the same,
    and so is the mask of dropout.

    Args:
        query: one vector for each position and head that attends.
        key: one vector for each position and head that is attended to; where there are fewer heads
            than of ``query``, neighbouring query heads share one.
        value: what is averaged.
        config: which blocks attend to which.
        query_segment_ids: queries attend to the keys of their segment only; needs those of keys.
        key_segment_ids: no query attends to segment 0, padding; None for everything. A query that
            may attend nowhere gets zeros.
        causal: let position t attend to those up to and including t only.
        scale: of the logits; None for ``1 / √H``.
        dropout_rate: of the weights; needs ``dropout_key``.
        dropout_key: typed random key; None for no dropout.
        product_dtype: of the operands of both products; None for that of ``query``.
        blocks_per_step: query blocks worked on together: more of them take more memory, and fewer
            steps.

    Raises:
        InputError: ``blocks_per_step`` or the blocks' size is not positive, or the query heads
            cannot share the key heads evenly.

    >>> ones = jnp.ones((1, 7, 2, 5))
    >>> config = BlockSparseConfig(block_size=2)
    >>> bool(jnp.allclose(block_sparse_attention(ones, ones, ones, config), 1.0))
    True
    """
    if blocks_per_step < 1 or config.block_size < 1:
        raise InputError(
            "blocks_per_step and block_size must be at least 1, got "
            f"{blocks_per_step} and {config.block_size}."
        )
    length, size = query.shape[1], config.block_size
    num_blocks = -(-length // size)
    pattern = block_pattern(config, num_blocks, causal=causal)
    attend = functools.partial(
        tiled_attention,
        key=key,
        value=value,
        key_segment_ids=key_segment_ids,
        dropout_key=dropout_key,
        scale=scale,
    )
    table = TileConfig(
        num_rows=length,
        num_columns=length,
        has_spare_columns=True,
        causal=causal,
        dropout_rate=dropout_rate,
        product_dtype=jnp.dtype(product_dtype or query.dtype),
    )
    num_global = min(config.num_global_blocks, num_blocks)
    first = min(num_global * size, length)  # of the queries that do not attend to all
    attended = []
    if num_global > 0:
        segment_ids = None if query_segment_ids is None else query_segment_ids[:, :first]
        attended.append(_attend_to_all(attend, query[:, :first], segment_ids, table))
    if num_global < num_blocks:
        segment_ids = None if query_segment_ids is None else query_segment_ids[:, first:]
        table = dataclasses.replace(table, first_row=first)
        steps = min(blocks_per_step, num_blocks - num_global)
        attended.append(
            _attend_by_pattern(attend, query[:, first:], segment_ids, table, pattern, size, steps)
        )
    return jnp.concatenate(attended, axis=1)


def _attend_to_all(
    attend: Callable[..., Float[Array, "B Q N H"]],
    query: Float[Array, "B Q N H"],
    segment_ids: Int[Array, "B Q"] | None,
    table: TileConfig,
) -> Float[Array, "B Q N H"]:
    """Let the queries of the global blocks, the first ones, attend to all keys."""
    rows = split_evenly(query.shape[1], CHUNK_SIZE)
    columns = split_evenly(table.num_columns, CHUNK_SIZE)
    return attend(
        query,
        query_segment_ids=segment_ids,
        config=table,
        row_shape=(rows[0], 1, rows[1]),
        column_shape=columns,
        schedule=schedule_pairs(rows, columns, causal=table.causal),
    )


def _attend_by_pattern(
    attend: Callable[..., Float[Array, "B Q N H"]],
    query: Float[Array, "B Q N H"],
    segment_ids: Int[Array, "B Q"] | None,
    table: TileConfig,
    pattern: Bool[np.ndarray, "blocks blocks"],
    block_size: int,
    blocks_per_step: int,
) -> Float[Array, "B Q N H"]:
    """Let the other queries, from ``table.first_row`` on, attend to what ``pattern`` says."""
    num_blocks = len(pattern)
    own_rows = pattern[table.first_row // block_size :]
    return attend(
        query,
        query_segment_ids=segment_ids,
        config=table,
        row_shape=(-(-len(own_rows) // blocks_per_step), blocks_per_step, block_size),
        column_shape=(num_blocks, block_size),
        schedule=schedule_pattern(own_rows, blocks_per_step),
    )
