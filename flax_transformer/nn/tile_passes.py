"""The two passes of attention over tiles of its table, of which only those in work ever exist.

The softmax is taken in passing: of each row of the table are kept its greatest logit so far, the
sum of its weights, and the sum of the values by these weights, rescaled when a greater logit is met
(Milakov and Gimelshein, 2018, arXiv 1805.02867; Rabe and Staats, 2021, arXiv 2112.05682). The
backward pass makes each tile again from the first two (Dao et al., 2022, arXiv 2205.14135). Memory
grows with the rows and with the columns, not with their product.

Axes, beside those of :mod:`flax_transformer.array_types`: ``Q`` groups of ``X`` query tiles that
are worked on together, each of ``R`` rows; ``M`` key tiles of ``C`` columns; ``G = N / K`` query
heads of one key head; ``P`` steps.
"""

import functools
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from flax_transformer.array_types import Array, Float
from flax_transformer.nn.products import einsum
from flax_transformer.nn.tile_layout import (
    add_to_pairs,
    add_to_tiles,
    put_group,
    take_group,
    take_tiles,
)
from flax_transformer.nn.tiles import Conditions, Schedule, TileConfig, TileTerms, tile_terms


class _Inputs(NamedTuple):
    queries: Float[Array, "Q X B K G R H"]
    keys: Float[Array, "M B K C H"]
    values: Float[Array, "M B K C H"]
    bias: Float[Array, "#Q #M #B #K #G #R #C"] | None
    schedule: Schedule
    conditions: Conditions


class _Sums(NamedTuple):
    """What is kept of each row; at the end the result takes the place of the sum of values."""

    maximum: Float[Array, "*Q X B K G R 1"]
    weights: Float[Array, "*Q X B K G R 1"]
    values: Float[Array, "*Q X B K G R H"]


class _Gradients(NamedTuple):
    queries: Float[Array, "Q X B K G R H"]
    keys: Float[Array, "M B K C H"]
    values: Float[Array, "M B K C H"]
    bias: Float[Array, "#Q #M #B #K #G #R #C"] | None


_Cotangents: TypeAlias = tuple[Array, Array, Array, Array | None, None, None]
"""Of the arguments of :func:`attend_by_tiles` after the first."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def attend_by_tiles(
    config: TileConfig,
    queries: Float[Array, "Q X B K G R H"],
    keys: Float[Array, "M B K C H"],
    values: Float[Array, "M B K C H"],
    bias: Float[Array, "#Q #M #B #K #G #R #C"] | None,
    schedule: Schedule,
    conditions: Conditions,
) -> Float[Array, "Q X B K G R H"]:
    """Return ``softmax(Q Kᵀ + bias) V`` over the scheduled tiles, float32; zeros for empty rows.

    Differentiable in reverse mode, once.

    Args:
        config: see there.
        queries: already scaled.
        keys: what is attended to.
        values: what is averaged.
        bias: added to the logits, cut into tiles; needs groups of one tile.
        schedule: no query tile may meet a key tile twice.
        conditions: see there.
    """
    return _forward(config, queries, keys, values, bias, schedule, conditions)[0]


def _forward(
    config: TileConfig,
    queries: Float[Array, "Q X B K G R H"],
    keys: Float[Array, "M B K C H"],
    values: Float[Array, "M B K C H"],
    bias: Float[Array, "#Q #M #B #K #G #R #C"] | None,
    schedule: Schedule,
    conditions: Conditions,
) -> tuple[Float[Array, "Q X B K G R H"], tuple[_Inputs, _Sums]]:
    """Return the result, and what the backward pass needs."""
    multiply = functools.partial(einsum, dtype=config.product_dtype, result_dtype=jnp.float32)

    def add_tiles(sums: _Sums, step: Schedule) -> tuple[_Sums, None]:
        before = _Sums(*(take_group(each, step.group) for each in sums))
        query = take_group(queries, step.group)
        key, value = (take_tiles(each, step.key_tile) for each in (keys, values))
        logits = multiply("xbkgrh,xbkch->xbkgrc", query, key)
        terms = tile_terms(config, logits.shape, bias, conditions, step)
        logits = _restrict(logits, terms)
        maximum = jnp.maximum(before.maximum, logits.max(-1, keepdims=True))
        weights = jnp.exp(logits - maximum)
        decay = jnp.exp(before.maximum - maximum)
        sum_of_weights = decay * before.weights + weights.sum(-1, keepdims=True)
        weighted = multiply("xbkgrc,xbkch->xbkgrh", _drop(weights, terms, config), value)
        after = _Sums(maximum, sum_of_weights, decay * before.values + weighted)
        pairs = zip(sums, after, strict=True)
        return _Sums(*(put_group(*pair, step.group) for pair in pairs)), None

    row_shape = (*queries.shape[:-1], 1)
    # A finite start: a logit of -inf has a weight of 0 even where there is no other one.
    start = _Sums(
        maximum=jnp.full(row_shape, jnp.finfo(jnp.float32).min, jnp.float32),
        weights=jnp.zeros(row_shape, jnp.float32),
        values=jnp.zeros(queries.shape, jnp.float32),
    )
    sums, _ = jax.lax.scan(add_tiles, start, schedule)
    # A row without a weight has no values either: 0 / 1.
    normalizer = jnp.where(sums.weights == 0.0, 1.0, sums.weights)
    result = sums.values / normalizer
    inputs = _Inputs(queries, keys, values, bias, schedule, conditions)
    return result, (inputs, _Sums(sums.maximum, normalizer, result))


def _backward(
    config: TileConfig,
    residuals: tuple[_Inputs, _Sums],
    cotangent: Float[Array, "Q X B K G R H"],
) -> _Cotangents:
    """Return the gradients of queries, keys, values and bias (algorithm 4 of arXiv 2205.14135).

    Columns come before rows here: then no product needs a tile turned, and that of the queries'
    gradient a key only.
    """
    inputs, sums = residuals
    queries, keys, values, bias, schedule, conditions = inputs
    # Of each row, the sum of its weights times their gradients, known without the row.
    inner = (cotangent * sums.values).sum(-1, keepdims=True)
    multiply = functools.partial(einsum, dtype=config.product_dtype, result_dtype=jnp.float32)

    def add_tiles(gradients: _Gradients, step: Schedule) -> tuple[_Gradients, None]:
        query, of_result = take_group(queries, step.group), take_group(cotangent, step.group)
        key, value = (take_tiles(each, step.key_tile) for each in (keys, values))
        maximum, normalizer, inner_tile = (
            _columns_first(take_group(each, step.group))
            for each in (sums.maximum, sums.weights, inner)
        )
        shape = (*query.shape[:-1], key.shape[-2])
        terms = tile_terms(config, shape, bias, conditions, step)
        terms = jax.tree.map(_columns_first, terms)

        logits = _restrict(multiply("xbkch,xbkgrh->xbkcgr", key, query), terms)
        weights = jnp.exp(logits - maximum) / normalizer
        of_value = multiply("xbkcgr,xbkgrh->xbkch", _drop(weights, terms, config), of_result)
        of_dropped = multiply("xbkch,xbkgrh->xbkcgr", value, of_result)
        of_logits = weights * (_drop(of_dropped, terms, config) - inner_tile)
        of_key = multiply("xbkcgr,xbkgrh->xbkch", of_logits, query)
        of_query = multiply("xbkch,xbkcgr->xbkhgr", key, of_logits)
        of_query = take_group(gradients.queries, step.group) + jnp.moveaxis(of_query, 3, -1)
        of_bias = gradients.bias
        if of_bias is not None:
            of_bias = add_to_pairs(of_bias, jnp.moveaxis(of_logits, 3, -1), *step)
        return _Gradients(
            put_group(gradients.queries, of_query, step.group),
            add_to_tiles(gradients.keys, of_key, step.key_tile),
            add_to_tiles(gradients.values, of_value, step.key_tile),
            of_bias,
        ), None

    start = _Gradients(
        jnp.zeros(queries.shape, jnp.float32),
        jnp.zeros(keys.shape, jnp.float32),
        jnp.zeros(values.shape, jnp.float32),
        None if bias is None else jnp.zeros(bias.shape, jnp.float32),
    )
    gradients, _ = jax.lax.scan(add_tiles, start, schedule)
    return (
        gradients.queries.astype(queries.dtype),
        gradients.keys.astype(keys.dtype),
        gradients.values.astype(values.dtype),
        None if gradients.bias is None or bias is None else gradients.bias.astype(bias.dtype),
        None,
        None,
    )


attend_by_tiles.defvjp(_forward, _backward)


def _restrict(logits: Array, terms: TileTerms) -> Array:
    """Add the bias, and give no weight to what the mask does not allow."""
    if terms.bias is not None:
        logits = logits + terms.bias
    return logits if terms.mask is None else jnp.where(terms.mask, logits, -jnp.inf)


def _drop(weights: Array, terms: TileTerms, config: TileConfig) -> Array:
    """Apply dropout."""
    if terms.keep is None:
        return weights
    return jnp.where(terms.keep, weights / (1.0 - config.dropout_rate), 0.0)


def _columns_first(tile: Array) -> Array:
    """Turn a tile ``[X, B, K, G, R, C]`` to ``[X, B, K, C, G, R]``."""
    return jnp.moveaxis(tile, -1, 3)
