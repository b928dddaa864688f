"""The best finished hypotheses of each row."""

import jax
import jax.numpy as jnp

from flax_transformer.array_types import Array, Bool
from flax_transformer.decoding.hypotheses import Hypotheses


def keep_best(hypotheses: Hypotheses, count: int) -> Hypotheses:
    """Return the ``count`` best hypotheses of each row, best first; of equal ones the first.

    >>> pair = Hypotheses(*map(jnp.array, ([[[3], [4]]], [[-2.0, -1.0]], [[[0.0]] * 2], [[1, 1]])))
    >>> keep_best(pair, 1).tokens
    Array([[[4]]], dtype=int32)
    """
    _, places = jax.lax.top_k(hypotheses.scores, count)
    return jax.tree.map(
        lambda field: jnp.take_along_axis(
            field, places.reshape(places.shape + (1,) * (field.ndim - 2)), axis=1
        ),
        hypotheses,
    )


def join_hypotheses(first: Hypotheses, second: Hypotheses) -> Hypotheses:
    """Return the hypotheses of both, those of ``first`` first."""
    return jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), first, second)


def update_rows(is_kept: Bool[Array, " B"], old: Hypotheses, new: Hypotheses) -> Hypotheses:
    """Return the rows of ``old`` where ``is_kept``, the others of ``new``."""
    return jax.tree.map(
        lambda before, after: jnp.where(
            is_kept.reshape(is_kept.shape + (1,) * (before.ndim - 1)), before, after
        ),
        old,
        new,
    )


def drop_duplicates(hypotheses: Hypotheses) -> Hypotheses:
    """Give the score -inf to what has the same tokens as another hypothesis before it.

    >>> twice = Hypotheses(
    ...     *map(jnp.array, ([[[3], [3]]], [[-1.0, -1.0]], [[[-1.0], [-1.0]]], [[1, 1]]))
    ... )
    >>> drop_duplicates(twice).scores
    Array([[ -1., -inf]], dtype=float32)
    """
    tokens, lengths = hypotheses.tokens, hypotheses.lengths
    is_same = (tokens[:, :, None] == tokens[:, None]).all(axis=-1)
    is_same &= lengths[:, :, None] == lengths[:, None]
    is_later = jnp.tril(jnp.ones(is_same.shape[1:], bool), k=-1)
    is_duplicate = (is_same & is_later).any(axis=-1)
    return hypotheses._replace(scores=jnp.where(is_duplicate, -jnp.inf, hypotheses.scores))
