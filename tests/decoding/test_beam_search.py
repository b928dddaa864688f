"""Beam search against an exhaustive search and a beam search in plain Python."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from logit_tables import (
    EOS,
    PAD,
    START,
    Path,
    all_paths,
    continuations,
    init_cache,
    make_tables,
    reorder,
    st_tables,
    table_step,
)

from flax_transformer.decoding.beam_search import beam_search
from flax_transformer.decoding.beam_strategy import BeamSearch
from flax_transformer.decoding.greedy import Greedy, greedy_search
from flax_transformer.decoding.length_penalty import length_divisor
from flax_transformer.errors import InputError

B, T, V = 7, 4, 3
# All there is: at the last step 2³ unfinished hypotheses have 3 continuations each.
WHOLE_SPACE = 24


@functools.partial(jax.jit, static_argnames="strategy")
def search(tables, strategy):
    return beam_search(
        table_step,
        reorder,
        init_cache(tables, strategy.beam_size),
        jnp.full(len(tables), START),
        strategy=strategy,
        eos_id=EOS,
        pad_id=PAD,
    )


def assert_are_the_best(hypotheses, row, paths, strategy):
    """Compare the hypotheses of a row with ``paths``, the best of which are expected.

    Paths of nearly equal scores may come in any order.
    """
    score_of = {
        path.tokens: path.score(strategy.length_normalization, strategy.length_penalty)
        for path in paths
    }
    tokens, scores, _, lengths = (np.asarray(field[row]) for field in hypotheses)
    best = sorted(score_of.values(), reverse=True)[: strategy.num_best]
    np.testing.assert_allclose(scores[: len(best)], best, rtol=2e-5, atol=2e-5)
    assert (scores[len(best) :] == -np.inf).all()
    found = [tuple(ids[:length]) for ids, length in zip(tokens, lengths, strict=True)]
    assert len(set(found[: len(best)])) == len(best)
    for w, expected in enumerate(best):
        np.testing.assert_allclose(score_of[found[w]], expected, rtol=2e-5, atol=2e-5)
        assert (tokens[w][lengths[w] :] == PAD).all()


@pytest.mark.parametrize(
    ("normalization", "alpha", "early_stopping"),
    [
        ("power", -1.0, "bound"),
        ("power", 0.6, "never"),
        ("power", 2.0, "bound"),
        ("gnmt", -1.0, "never"),
        ("gnmt", 0.6, "bound"),
        ("none", 0.6, "bound"),
        # With more hypotheses than the space has, the first ones to finish are all there are.
        ("power", 0.0, "first"),
        ("gnmt", 2.0, "first"),
    ],
)
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(tables=st_tables(3, T, V))
def test_a_beam_of_the_whole_space_is_exhaustive_search(
    tables, normalization, alpha, early_stopping
):
    strategy = BeamSearch(
        beam_size=WHOLE_SPACE,
        num_best=5,
        max_length=T,
        length_penalty=alpha,
        length_normalization=normalization,
        early_stopping=early_stopping,
    )
    hypotheses = search(tables, strategy)
    for row, table in enumerate(tables):
        assert_are_the_best(hypotheses, row, all_paths(table), strategy)


@pytest.mark.parametrize("min_length", [3])
def test_with_a_minimal_length_it_is_exhaustive_search_of_the_longer_ones(min_length):
    tables = make_tables(3, B, T, V)
    tables[..., EOS] += 4.0
    strategy = BeamSearch(beam_size=WHOLE_SPACE, num_best=4, max_length=T, min_length=min_length)
    hypotheses = search(tables, strategy)
    assert (hypotheses.lengths >= min_length).all()
    for row, table in enumerate(tables):
        # Probabilities are the model's: what is ruled out keeps its share.
        assert_are_the_best(hypotheses, row, all_paths(table, min_length), strategy)


def plain_beam_search(table, strategy):
    """Search one row by the description of ``BeamSearch``, with lists."""

    def score(path):
        return path.score(strategy.length_normalization, strategy.length_penalty)

    width, finished, unfinished = strategy.beam_size, [], [Path()]
    for step in range(strategy.max_length):
        longer = [c for path in unfinished for c in continuations(table, path)]
        longer.sort(key=lambda path: path.log_prob, reverse=True)
        is_last = step + 1 == strategy.max_length
        finished += [path for path in longer[:width] if path.is_finished or is_last]
        finished = sorted(finished, key=score, reverse=True)[:width]
        unfinished = [path for path in longer[: 2 * width] if not path.is_finished][:width]
        if not unfinished or (strategy.early_stopping == "first" and len(finished) == width):
            break
    return finished


@pytest.mark.parametrize(
    ("beam_size", "early_stopping"), [(2, "first"), (5, "first"), (2, "bound"), (3, "never")]
)
def test_narrow_beams_are_those_of_a_plain_search(beam_size, early_stopping):
    length, vocab_size = 6, 4
    tables = np.concatenate(
        [
            make_tables(4, 9, length, vocab_size),
            make_tables(5, 8, length, vocab_size, impossible=0.6),
        ]
    )
    strategy = BeamSearch(
        beam_size=beam_size,
        num_best=min(beam_size, 2),
        max_length=length,
        length_penalty=1.3,
        length_normalization="power",
        early_stopping=early_stopping,
    )
    hypotheses = search(tables, strategy)
    for row, table in enumerate(tables):
        assert_are_the_best(hypotheses, row, plain_beam_search(table, strategy), strategy)


def test_one_hypothesis_is_greedy_search():
    tables = make_tables(7, 31, 6, V)
    hypotheses = search(tables, BeamSearch(beam_size=1, max_length=6, min_length=2))
    greedy = greedy_search(
        table_step,
        init_cache(tables, 1),
        jnp.full(len(tables), START),
        strategy=Greedy(max_length=6, min_length=2),
        eos_id=EOS,
        pad_id=PAD,
    )
    np.testing.assert_array_equal(hypotheses.tokens, greedy.tokens)
    np.testing.assert_array_equal(hypotheses.lengths, greedy.lengths)
    np.testing.assert_allclose(hypotheses.token_scores, greedy.token_scores, atol=1e-5)
    assert len(np.unique(greedy.lengths)) > 2


def test_a_row_does_not_depend_on_its_neighbours():
    tables = make_tables(8, B, T, V)
    strategy = BeamSearch(beam_size=3, num_best=3, max_length=T)
    together = search(tables, strategy)
    for row in range(B):
        alone = search(tables[row : row + 1], strategy)
        chex.assert_trees_all_equal(
            jax.tree.map(lambda field: field[0], alone),
            jax.tree.map(lambda field, row=row: field[row], together),
        )


def test_the_n_best_are_sorted_distinct_and_scored_by_their_tokens():
    tables = make_tables(9, B, 6, 4)
    strategy = BeamSearch(beam_size=5, num_best=5, max_length=6, early_stopping="never")
    tokens, scores, token_scores, lengths = search(tables, strategy)
    assert (np.diff(scores) <= 0).all()
    for row in np.asarray(tokens).tolist():
        assert len(set(map(tuple, row))) == 5
    divisor = length_divisor(lengths, alpha=0.6, normalization="gnmt")
    expected = token_scores.sum(-1) / divisor
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    is_padding = np.arange(6) >= np.asarray(lengths)[..., None]
    assert (np.asarray(token_scores)[is_padding] == 0).all()


def test_a_certain_end_gives_one_hypothesis_and_empty_ones():
    tables = np.full((2, T, V, V, V), -np.inf, np.float32)
    tables[..., EOS] = 3.0
    hypotheses = search(tables, BeamSearch(beam_size=4, num_best=3, max_length=T))
    assert hypotheses.lengths.tolist() == [[1, 0, 0]] * 2
    assert hypotheses.scores.tolist() == [[0.0, -np.inf, -np.inf]] * 2
    assert hypotheses.tokens[0].tolist() == [[EOS, PAD, PAD, PAD]] + [[PAD] * T] * 2
    assert not hypotheses.token_scores.any()


def test_without_an_end_the_limit_stops_the_search():
    tables = make_tables(10, B, T, V)
    tables[..., EOS] = -np.inf
    tokens, scores, _, lengths = search(tables, BeamSearch(beam_size=2, max_length=3))
    assert tokens.shape == (B, 1, 3)
    assert (lengths == 3).all()
    assert (tokens > EOS).all()
    assert np.isfinite(scores).all()


def test_a_vocabulary_of_one_token():
    hypotheses = search(np.zeros((1, T, 1, 1, 1), np.float32), BeamSearch(max_length=T))
    assert hypotheses.tokens.tolist() == [[[EOS, PAD, PAD, PAD]]]


def test_a_dead_end_is_left_for_other_hypotheses():
    tables = make_tables(11, 1, T, V)
    tables[0, 0, START, START] = [-3.0, 5.0, 0.0]
    tables[0, 1, :, 1] = -np.inf  # After the most probable first token nothing is possible.
    strategy = BeamSearch(beam_size=3, num_best=3, max_length=T, early_stopping="never")
    tokens, scores, *_ = search(tables, strategy)
    assert np.isfinite(scores).all()
    assert all(row[0] != 1 for row in tokens[0].tolist())
    # The only token that is left may be too early: then nothing is possible at all.
    tables[..., 1:] = -np.inf
    hopeless = search(tables, BeamSearch(beam_size=2, max_length=T, min_length=2))
    assert hopeless.scores.tolist() == [[-np.inf]]
    assert hopeless.lengths.tolist() == [[0]]


def test_a_logit_that_is_not_a_number_shows_in_its_row_only():
    tables = make_tables(12, 3, T, V)
    strategy = BeamSearch(beam_size=2, num_best=2, max_length=T, early_stopping="bound")
    expected = search(tables, strategy)
    tables[1, 0] = np.nan
    result = search(tables, strategy)
    assert np.isnan(result.scores[1]).any()
    for row in (0, 2):
        chex.assert_trees_all_equal(
            jax.tree.map(lambda field, row=row: field[row], result),
            jax.tree.map(lambda field, row=row: field[row], expected),
        )


def test_other_tables_of_the_same_shape_are_not_traced_again():
    chex.clear_trace_counter()
    # An equal strategy is the same program, too: it is part of what the compiled one is found by.
    traced = jax.jit(chex.assert_max_traces(search.__wrapped__, n=1), static_argnums=1)
    first, second = (
        traced(make_tables(seed, 2, T, V), BeamSearch(beam_size=2, max_length=T))
        for seed in (13, 14)
    )
    assert not np.array_equal(first.scores, second.scores)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beam_size": 0}, r"beam_size must be at least 1, got 0"),
        ({"num_best": 0}, r"num_best must lie between 1 and beam_size = 4, got 0"),
        ({"num_best": 5}, r"num_best must lie between 1 and beam_size = 4, got 5"),
        ({"max_length": 0}, r"max_length must be at least 1, got 0"),
        ({"min_length": -1}, r"min_length must lie between 0 and max_length = 128, got -1"),
        ({"min_length": 129}, r"min_length must lie between 0 and max_length = 128, got 129"),
        ({"length_penalty": float("nan")}, r"length_penalty must be finite, got nan"),
        ({"length_penalty": float("inf")}, r"length_penalty must be finite, got inf"),
        ({"length_normalization": "gmnt"}, r"length_normalization must .* gnmt, none, got 'gmnt'"),
        ({"early_stopping": True}, r"early_stopping must be one of first, bound, .* got True"),
        ({"coverage_penalty": -0.1}, r"coverage_penalty must be finite and not negative, got -0.1"),
        ({"diversity_strength": float("nan")}, r"diversity_strength must be finite .* got nan"),
        ({"num_groups": 0}, r"num_groups must divide beam_size = 4, got 0"),
        ({"num_groups": 3}, r"num_groups must divide beam_size = 4, got 3"),
    ],
)
def test_options_that_cannot_work_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        BeamSearch(**options)
