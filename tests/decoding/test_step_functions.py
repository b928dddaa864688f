"""Ensembles and contrasts of step functions, searched with caches of their own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logit_tables import (
    EOS,
    PAD,
    START,
    all_paths,
    init_cache,
    make_tables,
    reorder,
    table_step,
)

from flax_transformer.decoding.beam_search import beam_search
from flax_transformer.decoding.beam_strategy import BeamSearch
from flax_transformer.decoding.step_functions import (
    combine_reorders,
    make_contrastive_step,
    make_ensemble_step,
)
from flax_transformer.errors import InputError

B, T, V = 4, 4, 3
WHOLE_SPACE = 24
STRATEGY = BeamSearch(beam_size=WHOLE_SPACE, num_best=4, max_length=T, early_stopping="bound")


def search(tables, make_step):
    """Search with one step function and one cache for each of ``tables``."""
    caches = tuple(init_cache(table, WHOLE_SPACE) for table in tables)
    return jax.jit(
        lambda caches: beam_search(
            make_step([table_step] * len(tables)),
            combine_reorders([reorder] * len(tables)),
            caches,
            jnp.full(B, START),
            strategy=STRATEGY,
            eos_id=EOS,
            pad_id=PAD,
        )
    )(caches)


def assert_searches(hypotheses, log_probs):
    """Compare with an exhaustive search of the tables of ``log_probs``."""
    for row, table in enumerate(log_probs):
        best = sorted(all_paths(table), key=lambda path: -path.score("gnmt", 0.6))[:4]
        found = [
            tuple(ids[:length].tolist())
            for ids, length in zip(hypotheses.tokens[row], hypotheses.lengths[row], strict=True)
        ]
        assert found[: len(best)] == [path.tokens for path in best]
        np.testing.assert_allclose(
            hypotheses.scores[row, : len(best)],
            [path.score("gnmt", 0.6) for path in best],
            atol=2e-5,
        )


def softmax(logits):
    return np.asarray(jax.nn.softmax(logits.astype(np.float64)), np.float64)


def test_an_ensemble_searches_the_mean_of_the_probabilities():
    tables = make_tables(101, B, T, V), make_tables(102, B, T, V)
    hypotheses = search(tables, lambda fns: make_ensemble_step(fns, weights=(1, 3)))
    mean = 0.25 * softmax(tables[0]) + 0.75 * softmax(tables[1])
    assert_searches(hypotheses, np.log(mean).astype(np.float32))


def test_an_ensemble_searches_the_mean_of_the_log_probabilities():
    tables = [make_tables(seed, B, T, V) for seed in (103, 104, 105)]
    hypotheses = search(tables, lambda fns: make_ensemble_step(fns, average="log_probabilities"))
    assert_searches(hypotheses, sum(tables) / 3)


def test_a_contrast_searches_what_is_plausible_by_the_quotient():
    expert, amateur = make_tables(106, B, T, V), make_tables(107, B, T, V)
    hypotheses = search(
        (expert, amateur),
        lambda fns: make_contrastive_step(*fns, plausibility=0.2, amateur_temperature=2.0),
    )
    of_expert, of_amateur = softmax(expert), softmax(amateur / 2.0)
    is_plausible = of_expert >= 0.2 * of_expert.max(-1, keepdims=True)
    contrast = np.where(is_plausible, np.log(of_expert / of_amateur), -np.inf)
    assert not is_plausible.all()
    assert_searches(hypotheses, contrast.astype(np.float32))


def step_once(make_step, *logits):
    fns = [lambda tokens, cache, row=row: (jnp.asarray(row)[None, None], cache) for row in logits]
    result, caches = make_step(fns)(jnp.zeros((1, 1), int), ("a", "b")[: len(fns)])
    assert caches == ("a", "b")[: len(fns)]
    return np.asarray(result[0, 0])


logit_rows = st.lists(st.floats(-30, 30, width=32), min_size=5, max_size=5).map(np.float32)


@settings(max_examples=30, deadline=None)
@given(
    first=logit_rows,
    second=logit_rows,
    average=st.sampled_from(["probabilities", "log_probabilities"]),
)
def test_an_ensemble_is_normalised_and_of_equal_models_is_the_model(first, second, average):
    def make_step(fns):
        return make_ensemble_step(fns, average=average)

    np.testing.assert_allclose(np.exp(step_once(make_step, first, second)).sum(), 1.0, rtol=1e-5)
    expected = jax.nn.log_softmax(first)
    np.testing.assert_allclose(step_once(make_step, first, first), expected, atol=1e-4)
    np.testing.assert_allclose(step_once(make_step, first), expected, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(expert=logit_rows, amateur=logit_rows)
def test_a_contrast_of_strict_plausibility_is_the_expert_alone(expert, amateur):
    strict = step_once(lambda fns: make_contrastive_step(*fns, plausibility=1.0), expert, amateur)
    best = jax.nn.log_softmax(expert)
    assert set(np.flatnonzero(np.isfinite(strict))) == set(np.flatnonzero(best == best.max()))
    # To an amateur that knows nothing, the contrast is the expert's own order.
    uniform = step_once(
        lambda fns: make_contrastive_step(*fns, plausibility=1e-30), expert, np.zeros(5, np.float32)
    )
    np.testing.assert_allclose(uniform - uniform.max(), best - best.max(), atol=1e-4)


def test_what_a_part_rules_out():
    ruled_out = np.array([-np.inf, 0.0, 0.0], np.float32)
    even = np.zeros(3, np.float32)
    mean = step_once(make_ensemble_step, ruled_out, even)
    np.testing.assert_allclose(np.exp(mean), [1 / 6, 5 / 12, 5 / 12], rtol=1e-5)
    product = step_once(
        lambda fns: make_ensemble_step(fns, average="log_probabilities"), ruled_out, even
    )
    np.testing.assert_allclose(np.exp(product), [0.0, 0.5, 0.5], rtol=1e-5)
    contrast = step_once(lambda fns: make_contrastive_step(*fns), even, ruled_out)
    assert np.isfinite(contrast).all()
    assert contrast.argmax() == 0
    contrast = step_once(lambda fns: make_contrastive_step(*fns), ruled_out, even)
    assert np.isneginf(contrast).tolist() == [True, False, False]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_ensemble_step([]), r"step_fns must hold at least one function, got none"),
        (lambda: make_ensemble_step([table_step], weights=[1, 2]), r"weights must be as many .* 2"),
        (lambda: make_ensemble_step([table_step], weights=[0]), r"weights must be positive .* \[0"),
        (lambda: make_ensemble_step([table_step], average="mean"), r"average must .* got 'mean'"),
        (
            lambda: make_contrastive_step(table_step, table_step, plausibility=0.0),
            r"plausibility must lie above 0 and not above 1, got 0.0",
        ),
        (
            lambda: make_contrastive_step(table_step, table_step, amateur_temperature=-1.0),
            r"amateur_temperature must be positive and finite, got -1.0",
        ),
    ],
)
def test_options_that_cannot_work_are_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.parametrize("average", ["probabilities", "log_probabilities"])
@pytest.mark.parametrize("weight", [1e-50, 1e39, 1e308])
def test_weights_of_any_size_are_relative(average, weight):
    def make_step(*probs):
        logits = jnp.log(jnp.array([[probs]]))
        return lambda tokens, cache: (logits, cache)

    step_fns = [make_step(0.5, 0.5, 0.0), make_step(0.25, 0.75, 0.0)]
    equal, _ = make_ensemble_step(step_fns, average=average)(None, (None, None))
    scaled = make_ensemble_step(step_fns, weights=[weight] * 2, average=average)
    np.testing.assert_allclose(scaled(None, (None, None))[0], equal, atol=1e-6)
    one_sided = make_ensemble_step(step_fns, weights=[1.0, 1e-50], average=average)
    first = one_sided(None, (None, None))[0]
    np.testing.assert_allclose(jnp.exp(first)[0, 0], [0.5, 0.5, 0.0], atol=1e-6)


def test_a_cold_amateur_rules_out_all_but_its_best():
    def make_step(*logits):
        return lambda tokens, cache: (jnp.array([[logits]]), cache)

    cold = make_contrastive_step(
        make_step(0.0, 0.0), make_step(5.0, 4.0), amateur_temperature=1e-40, plausibility=1e-9
    )
    logits, _ = cold(None, (None, None))
    assert np.isfinite(logits).all()
    assert logits[0, 0, 1] > logits[0, 0, 0]
