"""Truncations of the distribution that a token is drawn from.

Each filter takes logits, normalised or not, and returns them with -inf for what is cut off. At
least one token stays; tokens that are impossible already stay so.
"""

import jax.numpy as jnp

from flax_transformer.array_types import Array, Bool, Float
from flax_transformer.decoding.logits_processors import log_normalizer, set_logits
from flax_transformer.decoding.top_k import top_k


def keep_top_k(logits: Float[Array, "B W V"], k: int) -> Float[Array, "B W V"]:
    """Keep the ``k`` most probable tokens (Fan et al., 2018, arXiv 1805.04833).

    >>> keep_top_k(jnp.array([[[1.0, 3.0, 2.0, 2.0]]]), 2)
    Array([[[-inf,   3.,   2., -inf]]], dtype=float32)
    """
    best, ids = top_k(logits, min(k, logits.shape[-1]))
    return set_logits(jnp.full_like(logits, -jnp.inf), ids, best)


def keep_top_p(logits: Float[Array, "B W V"], p: float) -> Float[Array, "B W V"]:
    """Keep the fewest most probable tokens that together have probability ``p``.

    The nucleus of Holtzman et al. (2020, arXiv 1904.09751).

    >>> keep_top_p(jnp.log(jnp.array([[[0.25, 0.5, 0.25]]])), 0.7) > -jnp.inf
    Array([[[ True,  True, False]]], dtype=bool)
    """
    return _keep_mass(logits, -logits, p)


def keep_min_p(logits: Float[Array, "B W V"], p: float) -> Float[Array, "B W V"]:
    """Keep the tokens at least ``p`` times as probable as the most probable one.

    Nguyen et al. (2024, arXiv 2407.01082).

    >>> keep_min_p(jnp.log(jnp.array([[[0.6, 0.3, 0.1]]])), 0.4) > -jnp.inf
    Array([[[ True,  True, False]]], dtype=bool)
    """
    best = logits.max(axis=-1, keepdims=True)
    return jnp.where(logits >= best + jnp.log(p), logits, -jnp.inf)


def keep_typical(logits: Float[Array, "B W V"], p: float) -> Float[Array, "B W V"]:
    """Keep the fewest most typical tokens that together have probability ``p``.

    A token is the more typical, the nearer its information -log P is to the entropy of the
    distribution (Meister et al., 2023, arXiv 2202.00666).

    >>> keep_typical(jnp.log(jnp.array([[[0.6, 0.2, 0.15, 0.05]]])), 0.15) > -jnp.inf
    Array([[[False,  True, False, False]]], dtype=bool)
    """
    log_probs = logits - log_normalizer(logits)[..., None]
    is_possible = log_probs > -jnp.inf
    terms = jnp.where(is_possible, jnp.exp(log_probs) * log_probs, 0.0)
    entropy = -terms.sum(axis=-1, keepdims=True)
    return _keep_mass(logits, jnp.abs(-log_probs - entropy), p)


def _keep_mass(
    logits: Float[Array, "B W V"], rank: Float[Array, "B W V"], mass: float
) -> Float[Array, "B W V"]:
    """Keep the tokens of the lowest ``rank`` until their probabilities reach ``mass``."""
    if mass >= 1.0:
        # Rounding of the sum must not cut off the least probable tokens.
        return logits
    order = jnp.argsort(rank, axis=-1)
    probs = jnp.exp(logits - log_normalizer(logits)[..., None])
    in_order = jnp.take_along_axis(probs, order, axis=-1)
    before = jnp.cumsum(in_order, axis=-1) - in_order
    is_kept: Bool[Array, "B W V"] = jnp.take_along_axis(
        before < mass, jnp.argsort(order, axis=-1), axis=-1
    )
    return jnp.where(is_kept, logits, -jnp.inf)
