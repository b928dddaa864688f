"""The penalty of hypotheses that leave parts of the source unattended."""

from collections.abc import Callable
from typing import TypeAlias

import jax.numpy as jnp

from flax_transformer.array_types import Array, Bool, Float
from flax_transformer.decoding.hypotheses import Cache

AttentionFn: TypeAlias = Callable[[Cache], Float[Array, "B W S"]]
"""Read the attention of the last step to each position of the source from the cache."""

_LEAST_COVERAGE = 1e-10


def coverage_score(
    coverage: Float[Array, "B W S"], source_mask: Bool[Array, "B S"] | None, strength: float
) -> Float[Array, "B W"]:
    """Return β Σ_i log(min(Σ_j p_ij, 1)), with p_ij the attention of token j to position i.

    Wu et al. (2016, arXiv 1609.08144, equation 14). Padding of the source does not count, and a
    position that got less than 1e-10 counts as if it had got that, so that scores stay finite.

    >>> coverage_score(jnp.array([[[0.5, 0.5], [1.0, 0.0]]]), jnp.array([[True, False]]), 2.0)
    Array([[-1.3862944,  0.       ]], dtype=float32)

    Args:
        coverage: attention summed over the tokens of each hypothesis, Σ_j p_ij.
        source_mask: True on the source's tokens; None where there is no padding.
        strength: β.
    """
    logs = jnp.log(jnp.clip(coverage, _LEAST_COVERAGE, 1.0))
    if source_mask is not None:
        logs = jnp.where(source_mask[:, None], logs, 0.0)
    return strength * logs.sum(axis=-1)
