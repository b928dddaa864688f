"""Sampling: its distribution, its seeds, and what a sample depends on."""

import collections
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from logit_tables import EOS, PAD, START, all_paths, init_cache, make_tables, table_step

from flax_transformer.decoding.greedy import Greedy, greedy_search
from flax_transformer.decoding.sampling import Sampling, filter_logits, make_row_keys, sample
from flax_transformer.errors import InputError

B, T, V = 5, 4, 6


@functools.partial(jax.jit, static_argnames="strategy")
def draw(tables, strategy, row_numbers=None):
    return sample(
        table_step,
        init_cache(tables, strategy.num_samples),
        jnp.full(len(tables), START),
        strategy=strategy,
        eos_id=EOS,
        pad_id=PAD,
        row_keys=None if row_numbers is None else make_row_keys(strategy.seed, row_numbers),
    )


@pytest.mark.parametrize(
    "strategy",
    [
        Sampling(num_samples=4000, max_length=1),
        Sampling(num_samples=4000, max_length=1, temperature=0.6, top_k=5, top_p=0.9, min_p=0.02),
    ],
)
def test_frequencies_are_those_of_the_filtered_softmax(strategy):
    tables = make_tables(41, 2, 1, V) / 2
    tokens = np.asarray(draw(tables, strategy).tokens[..., 0])
    logits = tables[:, 0, START, START]
    filtered = np.asarray(filter_logits(logits[:, None], strategy)[:, 0], np.float64)
    probs = np.exp(filtered) / np.exp(filtered).sum(-1, keepdims=True)
    for row in range(2):
        counts = np.bincount(tokens[row], minlength=V)
        expected = strategy.num_samples * probs[row]
        assert not counts[expected == 0].any()
        possible = expected > 0
        chi_square = ((counts - expected)[possible] ** 2 / expected[possible]).sum()
        # For five degrees of freedom this is exceeded once in a million times.
        assert chi_square < 36.0
    # With one key for both rows their samples would be made of the same numbers.
    assert not np.array_equal(tokens[0], tokens[1])


def test_whole_outputs_are_as_frequent_as_they_are_probable():
    strategy = Sampling(num_samples=5000, max_length=3)
    tables = make_tables(45, 1, 3, 3) / 2
    tokens, _, _, lengths = (np.asarray(field[0]) for field in draw(tables, strategy))
    counts = collections.Counter(
        tuple(ids[:length]) for ids, length in zip(tokens.tolist(), lengths, strict=True)
    )
    paths = all_paths(tables[0])
    assert set(counts) <= {path.tokens for path in paths}
    expected = {path.tokens: 5000 * np.exp(path.log_prob) for path in paths}
    chi_square = sum((counts[path] - mean) ** 2 / mean for path, mean in expected.items())
    # 15 outputs: for 14 degrees of freedom this is exceeded once in a million times.
    assert len(expected) == 15
    assert chi_square < 55.0


def test_scores_are_log_probabilities_of_the_whole_distribution_best_first():
    tables = make_tables(42, B, T, V)
    strategy = Sampling(num_samples=7, max_length=T, min_length=2, temperature=0.7, top_k=3)
    tokens, scores, token_scores, lengths = map(np.asarray, draw(tables, strategy))
    for row in range(B):
        for w in range(7):
            so_far = (START, START)
            for step in range(lengths[row, w]):
                logits = tables[row, step][so_far[-2:]].astype(np.float64)
                token = tokens[row, w, step]
                expected = logits[token] - np.logaddexp.reduce(logits)
                np.testing.assert_allclose(token_scores[row, w, step], expected, atol=1e-5)
                so_far = (*so_far, token)
            assert (so_far[-1] == EOS) or lengths[row, w] == T
            assert (tokens[row, w, lengths[row, w] :] == PAD).all()
    np.testing.assert_allclose(scores, token_scores.sum(-1), rtol=1e-5)
    assert (np.diff(scores) <= 0).all()
    assert lengths.min() >= 2
    assert len(np.unique(lengths)) > 1


def test_a_sample_depends_on_the_seed_and_on_the_number_of_its_row_alone():
    tables = make_tables(43, B, T, V)
    strategy = Sampling(num_samples=3, max_length=T, seed=7)
    numbers = np.array([11, 4, 0, 90, 2])
    together = draw(tables, strategy, numbers)
    order = np.array([3, 0, 1])
    some = draw(tables[order], strategy, numbers[order])
    np.testing.assert_array_equal(some.tokens, together.tokens[order])
    np.testing.assert_array_equal(some.scores, together.scores[order])
    other = draw(tables, Sampling(num_samples=3, max_length=T, seed=8), numbers)
    assert not np.array_equal(other.tokens, together.tokens)
    np.testing.assert_array_equal(
        draw(tables, strategy).tokens, draw(tables, strategy, np.arange(B)).tokens
    )


@pytest.mark.parametrize("options", [{"top_k": 1}, {"temperature": 1e-30}])
def test_without_chance_it_is_greedy_search(options):
    tables = make_tables(44, B, T, V)
    greedy = greedy_search(
        table_step,
        init_cache(tables, 1),
        jnp.full(B, START),
        strategy=Greedy(max_length=T),
        eos_id=EOS,
        pad_id=PAD,
    )
    sampled = draw(tables, Sampling(max_length=T, **options))
    np.testing.assert_array_equal(sampled.tokens, greedy.tokens)
    np.testing.assert_allclose(sampled.token_scores, greedy.token_scores, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, r"temperature must be positive and finite, got 0.0. Use top_k = 1"),
        ({"temperature": float("nan")}, r"temperature must be positive and finite, got nan"),
        ({"top_k": 0}, r"top_k must be at least 1, got 0"),
        ({"top_p": 0.0}, r"top_p must lie above 0 and not above 1, got 0.0"),
        ({"min_p": 1.1}, r"min_p must lie above 0 and not above 1, got 1.1"),
        ({"typical_p": float("nan")}, r"typical_p must lie above 0 .* got nan"),
        ({"num_samples": 0}, r"num_samples must be at least 1, got 0"),
        ({"seed": -1}, r"seed must lie between 0 and 4294967295, got -1"),
        ({"max_length": 0}, r"max_length must be at least 1, got 0"),
    ],
)
def test_options_that_cannot_work_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        Sampling(**options)
