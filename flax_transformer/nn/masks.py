"""Attention masks of whole sequences.

A mask is boolean, True where a query may attend to a key, and broadcasts to ``[B, N, T, S]``.
"""

import jax.numpy as jnp

from flax_transformer.array_types import Array, Bool, Int


def make_padding_mask(is_token: Bool[Array, "B S"]) -> Bool[Array, "B 1 1 S"]:
    """Let every query attend to the keys that are tokens, and to no padding.

    >>> make_padding_mask(jnp.array([[True, True, False]])).shape
    (1, 1, 1, 3)
    """
    return is_token[:, None, None, :]


def make_segment_mask(
    query_segment_ids: Int[Array, "B T"], key_segment_ids: Int[Array, "B S"]
) -> Bool[Array, "B 1 T S"]:
    """Let a query attend to the keys of its own segment; segment 0 is padding and attends nowhere.

    >>> make_segment_mask(jnp.array([[1, 2, 0]]), jnp.array([[1, 2, 0]]))[0, 0].astype(int)
    Array([[1, 0, 0],
           [0, 1, 0],
           [0, 0, 0]], dtype=int32)
    """
    same_segment = query_segment_ids[:, :, None] == key_segment_ids[:, None, :]
    is_token = key_segment_ids != 0
    return (same_segment & is_token[:, None, :])[:, None]


def make_causal_mask(length: int) -> Bool[Array, "1 1 T T"]:
    """Let position t attend to the positions up to and including t.

    >>> make_causal_mask(3)[0, 0].astype(int)
    Array([[1, 0, 0],
           [1, 1, 0],
           [1, 1, 1]], dtype=int32)
    """
    return jnp.tril(jnp.ones((1, 1, length, length), dtype=bool))


def make_ancestry_mask(
    ancestry: Int[Array, "B W T"], index: Int[Array, ""]
) -> Bool[Array, "B 1 W T*W"]:
    """Let each hypothesis of a beam attend to its own past in a cache that all of them share.

    The cache holds slot ``t * W + w`` for what beam row ``w`` wrote at step ``t``. A hypothesis is
    a path through the slots: ``ancestry[b, w, t]`` is the row that its token ``t`` was written by.

    Args:
        ancestry: rows of the past of each hypothesis; entries after ``index`` are ignored.
        index: the current step, the last one that may be attended to.

    >>> make_ancestry_mask(jnp.array([[[1, 0], [1, 1]]]), jnp.array(1))[0, 0].astype(int)
    Array([[0, 1, 1, 0],
           [0, 1, 0, 1]], dtype=int32)
    """
    batch_size, beam_size, length = ancestry.shape
    is_past = (jnp.arange(length) <= index)[None, None, :, None]
    is_own = ancestry[..., None] == jnp.arange(beam_size)[None, None, None, :]
    return (is_own & is_past).reshape(batch_size, 1, beam_size, length * beam_size)
