"""Attention whose memory grows with the length of its inputs, not with its square."""

import math

import jax.numpy as jnp
from jax.typing import DTypeLike

from flax_transformer.array_types import Array, Bool, Float, Int, Key
from flax_transformer.errors import InputError
from flax_transformer.nn.schedules import schedule_pairs, split_evenly
from flax_transformer.nn.tiled_attention import tiled_attention
from flax_transformer.nn.tiles import TileConfig

CHUNK_SIZE = 256
"""So that the tiles of a few heads fit the caches of a processor."""


def chunked_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K H"],
    mask: Bool[Array, "#B #N #T #S"] | None = None,
    *,
    bias: Float[Array, "#B #N #T #S"] | None = None,
    causal: bool = False,
    query_segment_ids: Int[Array, "B T"] | None = None,
    key_segment_ids: Int[Array, "B S"] | None = None,
    scale: float | None = None,
    dropout_rate: float = 0.0,
    dropout_key: Key[Array, ""] | None = None,
    product_dtype: DTypeLike | None = None,
    chunk_size: int = CHUNK_SIZE,
) -> Float[Array, "B T N H"]:
    """Return what :func:`.dot_product.dot_product_attention` returns, without a ``T x S`` array.

    Neither pass makes one; the backward pass computes the weights again. With ``causal`` and
    segments the table of who may attend to whom need not exist either. Rounding apart, the result
    and its gradients are the same, and so is the mask of dropout. It can be differentiated in
    reverse mode, once.

    Args:
        query: one vector for each position and head that attends.
        key: one vector for each position and head that is attended to; where there are fewer heads
            than of ``query``, neighbouring query heads share one.
        value: what is averaged.
        mask: True where a query may attend to a key; a query that may attend nowhere gets zeros.
        bias: added to the logits.
        causal: let query t attend to the keys up to and including t.
        query_segment_ids: queries attend to the keys of their segment only.
        key_segment_ids: segment 0 is padding, which no query attends to.
        scale: of the logits; None for ``1 / √H``.
        dropout_rate: of the weights; needs ``dropout_key``.
        dropout_key: typed random key; None for no dropout.
        product_dtype: of the operands of both products; None for that of ``query``.
        chunk_size: most queries, and most keys, that are worked on together.

    Raises:
        InputError: ``chunk_size`` is not positive, the segments of the keys are missing, or the
            query heads cannot share the key heads evenly.

    >>> ones = jnp.ones((1, 9, 2, 5))
    >>> bool(jnp.allclose(chunked_attention(ones, ones, ones, causal=True), 1.0))
    True
    """
    if chunk_size < 1:
        raise InputError(f"chunk_size must be at least 1, got {chunk_size}.")
    if query_segment_ids is not None and key_segment_ids is None:
        raise InputError("key_segment_ids must be given with query_segment_ids, got None.")
    num_queries, num_keys = query.shape[1], key.shape[1]
    row_tiles = split_evenly(num_queries, chunk_size)
    column_tiles = split_evenly(num_keys, chunk_size)
    return tiled_attention(
        query,
        key,
        value,
        mask,
        bias=bias,
        query_segment_ids=query_segment_ids,
        key_segment_ids=key_segment_ids,
        dropout_key=dropout_key,
        scale=scale,
        config=TileConfig(
            num_rows=num_queries,
            num_columns=num_keys,
            has_spare_columns=math.prod(column_tiles) > num_keys,
            causal=causal,
            dropout_rate=dropout_rate,
            product_dtype=jnp.dtype(product_dtype or query.dtype),
        ),
        row_shape=(row_tiles[0], 1, row_tiles[1]),
        column_shape=column_tiles,
        schedule=schedule_pairs(row_tiles, column_tiles, causal=causal),
    )
