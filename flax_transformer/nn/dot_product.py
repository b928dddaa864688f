"""Scaled dot-product attention (section 3.2.1 of arXiv 1706.03762)."""

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from flax_transformer.array_types import Array, Bool, Float, Key
from flax_transformer.nn.dropout import dropout
from flax_transformer.nn.products import einsum


def masked_softmax(
    logits: Float[Array, "B N T S"],
    mask: Bool[Array, "#B #N #T #S"] | None,
    bias: Float[Array, "#B #N #T #S"] | None = None,
) -> Float[Array, "B N T S"]:
    """Softmax of ``logits + bias`` over the keys that ``mask`` allows, in float32.

    A query that may attend to no key gets zeros.

    >>> masked_softmax(jnp.zeros((1, 1, 2, 2)), jnp.array([[[[True, False], [False, False]]]]))
    Array([[[[1., 0.],
             [0., 0.]]]], dtype=float32)
    """
    logits = logits.astype(jnp.float32)
    if bias is not None:
        logits = logits + bias
    if mask is None:
        return jax.nn.softmax(logits)
    # The lowest finite number instead of -inf: a row without a key must not become NaN.
    weights = jax.nn.softmax(jnp.where(mask, logits, jnp.finfo(jnp.float32).min))
    return jnp.where(mask, weights, 0.0)


def repeat_heads(
    keys_or_values: Float[Array, "B S K H"], num_heads: int
) -> Float[Array, "B S N H"]:
    """Give each of ``num_heads`` query heads its key or value head (arXiv 2305.13245).

    Query heads ``n`` with the same ``n // (N / K)`` share a head.
    """
    num_key_value_heads = keys_or_values.shape[2]
    if num_key_value_heads == num_heads:
        return keys_or_values
    return jnp.repeat(keys_or_values, num_heads // num_key_value_heads, axis=2)


def attention_weights(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S N H"],
    mask: Bool[Array, "#B #N #T #S"] | None = None,
    *,
    bias: Float[Array, "#B #N #T #S"] | None = None,
    scale: float | None = None,
    product_dtype: DTypeLike | None = None,
) -> Float[Array, "B N T S"]:
    """Return ``softmax(Q Kᵀ / √H)``, the weights of equation 1, float32.

    Arguments as for :func:`dot_product_attention`.
    """
    logits = einsum(
        "btnh,bsnh->bnts",
        query * (query.shape[-1] ** -0.5 if scale is None else scale),
        key,
        dtype=product_dtype or query.dtype,
        result_dtype=jnp.float32,
    )
    return masked_softmax(logits, mask, bias)


def dot_product_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K H"],
    mask: Bool[Array, "#B #N #T #S"] | None = None,
    *,
    bias: Float[Array, "#B #N #T #S"] | None = None,
    scale: float | None = None,
    dropout_rate: float = 0.0,
    dropout_key: Key[Array, ""] | None = None,
    product_dtype: DTypeLike | None = None,
) -> Float[Array, "B T N H"]:
    """Return ``softmax(Q Kᵀ / √H) V`` (equation 1), head by head.

    The softmax is taken in float32 and the result has the dtype of ``value``.

    Args:
        query: one vector for each position and head that attends.
        key: one vector for each position and head that is attended to; where there are fewer heads
            than of ``query``, neighbouring query heads share one.
        value: what is averaged.
        mask: True where a query may attend to a key; a query that may attend nowhere gets zeros.
        bias: added to the logits.
        scale: of the logits; None for ``1 / √H``.
        dropout_rate: of the weights; needs ``dropout_key``.
        dropout_key: typed random key; None for no dropout.
        product_dtype: of the operands of both products; None for those of ``query`` and ``value``.

    >>> ones = jnp.ones((1, 3, 2, 5))
    >>> bool((dot_product_attention(ones, ones, ones) == 1.0).all())
    True
    """
    num_heads = query.shape[2]
    weights = attention_weights(
        query,
        repeat_heads(key, num_heads),
        mask,
        bias=bias,
        scale=scale,
        product_dtype=product_dtype,
    )
    if dropout_key is not None:
        weights = dropout(weights, dropout_rate, dropout_key)
    return einsum(
        "bnts,bsnh->btnh",
        weights,
        repeat_heads(value, num_heads),
        dtype=product_dtype or value.dtype,
        result_dtype=value.dtype,
    )
