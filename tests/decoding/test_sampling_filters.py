"""Filters of sampling against loops over sorted tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_transformer.decoding.sampling_filters import (
    keep_min_p,
    keep_top_k,
    keep_top_p,
    keep_typical,
)

LOGITS = 2.0 * np.random.default_rng(31).normal(size=(3, 7, 11)).astype(np.float32)
LOGITS[0, :, 4] = -np.inf


def softmax(logits):
    weights = np.exp(logits.astype(np.float64) - logits.max())
    return weights / weights.sum()


def first_of_mass(order, probs, mass):
    """Return the shortest beginning of ``order`` that has probability ``mass``."""
    kept, total = set(), 0.0
    for token in order:
        if total >= mass:
            break
        kept.add(int(token))
        total += probs[token]
    return kept


def by_typicality(probs):
    with np.errstate(divide="ignore"):
        information = -np.log(probs)
    entropy = sum(p * i for p, i in zip(probs, information, strict=True) if p > 0)
    return np.argsort(np.abs(information - entropy), kind="stable")


REFERENCES = {
    keep_top_k: lambda probs, k: set(np.argsort(-probs, kind="stable")[:k].tolist()),
    keep_top_p: lambda probs, p: first_of_mass(np.argsort(-probs, kind="stable"), probs, p),
    keep_min_p: lambda probs, p: set(np.flatnonzero(probs >= p * probs.max()).tolist()),
    keep_typical: lambda probs, p: first_of_mass(by_typicality(probs), probs, p),
}


@pytest.mark.parametrize(
    ("keep", "options"),
    [
        (keep_top_k, [1, 3]),
        (keep_top_p, [1e-6, 0.4, 0.93]),
        (keep_min_p, [0.03, 0.5]),
        (keep_typical, [1e-6, 0.4, 0.93]),
    ],
)
def test_a_filter_keeps_what_its_definition_keeps(keep, options):
    for option in options:
        # 5 is added: a filter must not need normalised logits.
        filtered = np.asarray(jax.jit(keep, static_argnums=1)(LOGITS + 5, option))
        for logits, result in zip(LOGITS.reshape(-1, 11), filtered.reshape(-1, 11), strict=True):
            kept = REFERENCES[keep](softmax(logits), option)
            assert set(np.flatnonzero(result > -np.inf).tolist()) == kept
            np.testing.assert_array_equal(result[list(kept)], (logits + 5)[list(kept)])


@pytest.mark.parametrize("keep", [keep_top_p, keep_typical])
def test_all_of_the_probability_is_all_tokens(keep):
    np.testing.assert_array_equal(keep(jnp.asarray(LOGITS), 1.0), LOGITS)


def test_where_nothing_is_possible_nothing_becomes_so():
    nothing = jnp.full((1, 1, 3), -jnp.inf)
    for keep, option in (
        (keep_top_k, 2),
        (keep_top_p, 0.5),
        (keep_min_p, 0.5),
        (keep_typical, 0.5),
    ):
        np.testing.assert_array_equal(keep(nothing, option), nothing)
