"""Step functions made of step functions: ensembles, and one model contrasted with another.

The cache of each is the tuple of the caches of its parts.
"""

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from flax_transformer.array_types import Array, Float, Int
from flax_transformer.decoding.hypotheses import Cache, ReorderFn, StepFn
from flax_transformer.decoding.logits_processors import log_normalizer
from flax_transformer.errors import InputError

Average: TypeAlias = Literal["probabilities", "log_probabilities"]

_LEAST_LOG_PROB = -100.0


def combine_reorders(reorder_fns: Sequence[ReorderFn]) -> ReorderFn:
    """Return a function that reorders each cache of a tuple by the function of its own."""

    def reorder(caches: tuple[Cache, ...], parents: Int[Array, "B W"]) -> tuple[Cache, ...]:
        return tuple(
            reorder_fn(cache, parents)
            for reorder_fn, cache in zip(reorder_fns, caches, strict=True)
        )

    return reorder


def make_ensemble_step(
    step_fns: Sequence[StepFn],
    *,
    weights: Sequence[float] | None = None,
    average: Average = "probabilities",
) -> StepFn:
    """Return a step function whose distribution is the mean of those of ``step_fns``.

    >>> def make_step(*probs):
    ...     logits = jnp.log(jnp.array([[probs]]))
    ...     return lambda tokens, cache: (logits, cache)
    >>> step_fns = [make_step(0.75, 0.25), make_step(0.25, 0.75)]
    >>> logits, _ = make_ensemble_step(step_fns, weights=[3, 1])(None, (None, None))
    >>> [round(float(prob), 3) for prob in jnp.exp(logits)[0, 0]]
    [0.625, 0.375]

    Args:
        step_fns: over one vocabulary.
        weights: of each, in relation to their sum; None for equal ones.
        average: ``"probabilities"`` for Σ w P, where one part alone can make a token probable;
            ``"log_probabilities"`` for Π P^w, normalised again, where one alone can rule it out.

    Raises:
        InputError: there are no step functions, or the weights cannot be such.
    """
    if not step_fns:
        raise InputError("step_fns must hold at least one function, got none.")
    if average not in ("probabilities", "log_probabilities"):
        raise InputError(f"average must be probabilities or log_probabilities, got {average!r}.")
    weights = [1.0] * len(step_fns) if weights is None else weights
    if len(weights) != len(step_fns):
        raise InputError(
            f"weights must be as many as step_fns, {len(step_fns)}, got {len(weights)}."
        )
    if not all(0.0 < weight < math.inf for weight in weights):
        raise InputError(f"weights must be positive and finite, got {list(weights)}.")
    # In 64 bits, and no share so small that float32 has it not.
    relative = np.array(weights, np.float64) / max(weights)
    shares = np.maximum(relative / relative.sum(), np.finfo(np.float32).tiny).astype(np.float32)

    def step(
        tokens: Int[Array, "B W"], caches: tuple[Cache, ...]
    ) -> tuple[Float[Array, "B W V"], tuple[Cache, ...]]:
        results = [step_fn(tokens, cache) for step_fn, cache in zip(step_fns, caches, strict=True)]
        log_probs = jnp.stack([_log_probs(logits) for logits, _ in results], axis=-1)
        if average == "probabilities":
            mean = jax.nn.logsumexp(log_probs + jnp.log(shares), axis=-1)
        else:
            mean = (shares * log_probs).sum(axis=-1)
            mean -= log_normalizer(mean)[..., None]
        return mean, tuple(cache for _, cache in results)

    return step


def make_contrastive_step(
    expert: StepFn,
    amateur: StepFn,
    *,
    strength: float = 1.0,
    plausibility: float = 0.1,
    amateur_temperature: float = 1.0,
) -> StepFn:
    """Return a step function for what ``expert`` finds more probable than ``amateur`` does.

    Contrastive decoding (Li et al., 2023, arXiv 2210.15097): log P_expert - log P_amateur for the
    tokens at least ``plausibility`` times as probable to the expert as its most probable one, -inf
    for the others. As with all logits, a search reads these as the logits of a distribution, and
    scores are its log-probabilities.

    >>> def make_step(*probs):
    ...     logits = jnp.log(jnp.array([[probs]]))
    ...     return lambda tokens, cache: (logits, cache)
    >>> step_fn = make_contrastive_step(make_step(0.5, 0.4, 0.1), make_step(0.5, 0.1, 0.4))
    >>> logits, _ = step_fn(None, (None, None))
    >>> [round(float(quotient), 3) for quotient in jnp.exp(logits)[0, 0]]
    [1.0, 4.0, 0.25]

    Args:
        expert: the model that is followed.
        amateur: a weaker model of the same vocabulary.
        strength: what its log-probabilities are multiplied by; 1 in the source.
        plausibility: α, above 0 and not above 1, which leaves the most probable token alone.
        amateur_temperature: divides the logits of the amateur.

    Raises:
        InputError: an option is out of range.
    """
    if not 0.0 <= strength < math.inf:
        raise InputError(f"strength must be finite and not negative, got {strength}.")
    if not 0.0 < plausibility <= 1.0:
        raise InputError(f"plausibility must lie above 0 and not above 1, got {plausibility}.")
    if not 0.0 < amateur_temperature < math.inf:
        raise InputError(
            f"amateur_temperature must be positive and finite, got {amateur_temperature}."
        )

    def step(
        tokens: Int[Array, "B W"], caches: tuple[Cache, Cache]
    ) -> tuple[Float[Array, "B W V"], tuple[Cache, Cache]]:
        expert_logits, expert_cache = expert(tokens, caches[0])
        amateur_logits, amateur_cache = amateur(tokens, caches[1])
        of_expert = _log_probs(expert_logits)
        # From the largest on, lest a small temperature divides to infinity.
        largest = amateur_logits.max(axis=-1, keepdims=True)
        cooled = amateur_logits - jnp.where(largest == -jnp.inf, 0.0, largest)
        cooled /= max(amateur_temperature, float(np.finfo(np.float32).tiny))
        # What the amateur rules out would be infinitely better than all else.
        of_amateur = jnp.maximum(_log_probs(cooled), _LEAST_LOG_PROB)
        least = of_expert.max(axis=-1, keepdims=True) + math.log(plausibility)
        is_plausible = (of_expert >= least) & (of_expert > -jnp.inf)
        contrast = jnp.where(is_plausible, of_expert - strength * of_amateur, -jnp.inf)
        return contrast, (expert_cache, amateur_cache)

    return step


def _log_probs(logits: Float[Array, "B W V"]) -> Float[Array, "B W V"]:
    logits = logits.astype(jnp.float32)
    return logits - log_normalizer(logits)[..., None]
