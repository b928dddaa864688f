"""Which of several programs computes attention; all give the same result, rounding apart."""

import dataclasses
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
from jax.extend.backend import get_backend
from jax.typing import DTypeLike

from flax_transformer.array_types import Array, Float, Key
from flax_transformer.errors import InputError
from flax_transformer.nn.attention_mask import AttentionMask
from flax_transformer.nn.block_sparse_attention import block_sparse_attention
from flax_transformer.nn.chunked_attention import chunked_attention
from flax_transformer.nn.dot_product import dot_product_attention
from flax_transformer.nn.masks import make_causal_mask

Program: TypeAlias = Literal["xla", "cudnn", "chunked"]

AttentionImplementation: TypeAlias = Literal["xla", "cudnn", "auto", "chunked"]
"""``xla`` multiplies whole matrices; ``chunked`` keeps no table of weights; ``cudnn`` is the fused
kernel of NVIDIA's library; ``auto`` takes ``cudnn`` where it can be had, or else ``chunked`` for
long inputs and ``xla`` for others."""

CHUNKED_FROM_PAIRS = 1024 * 1024
"""Queries times keys from which ``auto`` prefers ``chunked``: from there on a CPU its two passes
take about half the processor time of those of ``xla``, and its forward pass no more."""

CUDNN_MAX_HEAD_DIM = 128
"""Of every GPU that cuDNN's fused kernel supports; newer ones have more."""


def attend(
    implementation: AttentionImplementation,
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K H"],
    mask: AttentionMask,
    *,
    bias: Float[Array, "#B #N #T #S"] | None = None,
    scale: float | None = None,
    dropout_rate: float = 0.0,
    dropout_key: Key[Array, ""] | None = None,
    product_dtype: DTypeLike | None = None,
) -> Float[Array, "B T N H"]:
    """Compute dot-product attention by the program that ``implementation`` names.

    Where the mask is sparse, it is computed block by block, whatever that is.
    The other arguments are those of :func:`.dot_product.dot_product_attention`.

    Raises:
        InputError: ``implementation`` is ``"cudnn"``, which is not to be had here, or the mask is
            sparse and there are pairs or a bias.

    >>> ones = jnp.ones((1, 3, 2, 5))
    >>> bool(jnp.allclose(attend("auto", ones, ones, ones, AttentionMask(causal=True)), 1.0))
    True
    """
    if mask.sparsity.block_size:
        if mask.pairs is not None or bias is not None:
            raise InputError("a sparse mask must come without pairs and bias.")
        return block_sparse_attention(
            query,
            key,
            value,
            mask.sparsity,
            query_segment_ids=mask.query_segment_ids,
            key_segment_ids=mask.key_segment_ids,
            causal=mask.causal,
            scale=scale,
            dropout_rate=dropout_rate,
            dropout_key=dropout_key,
            product_dtype=product_dtype,
        )
    dtype = jnp.dtype(product_dtype or query.dtype)
    program = choose_program(
        implementation,
        query.shape,
        key.shape[1],
        dtype,
        has_pairs=any(each is not None for each in (bias, mask.pairs, mask.key_segment_ids)),
        has_dropout=dropout_key is not None and dropout_rate > 0.0,
    )
    match program:
        case "xla":
            return dot_product_attention(
                query,
                key,
                value,
                mask.dense(query.shape[1]),
                bias=bias,
                scale=scale,
                dropout_rate=dropout_rate,
                dropout_key=dropout_key,
                product_dtype=product_dtype,
            )
        case "chunked":
            return chunked_attention(
                query,
                key,
                value,
                mask.pairs,
                bias=bias,
                causal=mask.causal,
                query_segment_ids=mask.query_segment_ids,
                key_segment_ids=mask.key_segment_ids,
                scale=scale,
                dropout_rate=dropout_rate,
                dropout_key=dropout_key,
                product_dtype=product_dtype,
            )
        case "cudnn":
            return _cudnn_attention(query, key, value, mask, bias, scale, dtype)


def choose_program(
    implementation: AttentionImplementation,
    query_shape: tuple[int, ...],
    num_keys: int,
    product_dtype: DTypeLike,
    *,
    has_pairs: bool,
    has_dropout: bool,
) -> Program:
    """Return the program to use.

    Args:
        implementation: what is asked for.
        query_shape: ``[B, T, N, H]``.
        num_keys: S.
        product_dtype: of the operands of matrix products.
        has_pairs: whether there is a bias, or a mask besides the causal one.
        has_dropout: whether attention weights are dropped.

    Raises:
        InputError: ``implementation`` is ``"cudnn"``, which is not to be had here.

    >>> choose_program(
    ...     "auto", (1, 2048, 8, 64), 2048, "float32", has_pairs=False, has_dropout=False
    ... )
    'chunked'
    """
    if implementation in ("xla", "chunked"):
        return implementation
    _, num_queries, _, head_dim = query_shape
    obstacle = _cudnn_obstacle(
        num_queries, num_keys, head_dim, jnp.dtype(product_dtype), has_pairs, has_dropout
    )
    if obstacle is None:
        return "cudnn"
    if implementation == "cudnn":
        raise InputError(
            f"attention_implementation must not be 'cudnn' here: {obstacle}. "
            "'auto' uses cuDNN only where it can."
        )
    return "chunked" if num_queries * num_keys >= CHUNKED_FROM_PAIRS else "xla"


def _cudnn_obstacle(
    num_queries: int,
    num_keys: int,
    head_dim: int,
    product_dtype: jnp.dtype,
    has_pairs: bool,
    has_dropout: bool,
) -> str | None:
    """Return why cuDNN's kernel cannot be used; None where it can."""
    if "cuda" not in get_backend().platform_version:
        return "it needs an NVIDIA GPU"
    if product_dtype not in (jnp.bfloat16, jnp.float16):
        return f"it needs a product dtype of bfloat16 or float16, got {product_dtype}"
    if head_dim % 8 or head_dim > CUDNN_MAX_HEAD_DIM:
        return (
            f"it needs a head_dim that is a multiple of 8 up to {CUDNN_MAX_HEAD_DIM}, "
            f"got {head_dim}"
        )
    if has_dropout:
        return "its dropout of attention weights has one seed for all steps"
    if has_pairs and (num_queries % 2 or num_keys % 2):
        return f"with a mask or bias it needs even lengths, got {num_queries} and {num_keys}"
    return None


def _cudnn_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S K H"],
    value: Float[Array, "B S K H"],
    mask: AttentionMask,
    bias: Float[Array, "#B #N #T #S"] | None,
    scale: float | None,
    dtype: jnp.dtype,
) -> Float[Array, "B T N H"]:
    """Compute attention by cuDNN, which knows a causal mask, and any other as a bias."""
    num_queries, num_keys = query.shape[1], key.shape[1]

    def broadcast(pairs: Array) -> Array:
        return jnp.broadcast_to(pairs, (*pairs.shape[:2], num_queries, num_keys))

    pairs = dataclasses.replace(mask, causal=False).dense(num_queries)
    attended = jax.nn.dot_product_attention(
        query.astype(dtype),
        key.astype(dtype),
        value.astype(dtype),
        bias=None if bias is None else broadcast(bias.astype(dtype)),
        mask=None if pairs is None else broadcast(pairs),
        scale=scale,
        is_causal=mask.causal,
        implementation="cudnn",
    ).astype(value.dtype)
    if pairs is None:
        return attended
    # A query that may attend nowhere has the mean of some values here.
    allowed = pairs & make_causal_mask(num_queries) if mask.causal else pairs
    return jnp.where(allowed.any(-1).swapaxes(1, 2)[..., None], attended, 0.0)
