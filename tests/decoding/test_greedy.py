"""Greedy search against a loop in plain Python."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from logit_tables import (
    EOS,
    PAD,
    START,
    Path,
    continuations,
    init_cache,
    make_tables,
    table_step,
)

from flax_transformer.decoding.greedy import Greedy, greedy_search
from flax_transformer.errors import InputError

B, T, V = 23, 6, 3


@functools.partial(jax.jit, static_argnames="strategy")
def search(tables, strategy):
    return greedy_search(
        table_step,
        init_cache(tables, 1),
        jnp.full(len(tables), START),
        strategy=strategy,
        eos_id=EOS,
        pad_id=PAD,
    )


@pytest.mark.parametrize("min_length", [0, 3])
def test_each_token_is_the_most_probable_one(min_length):
    tables = make_tables(1, B, T, V)
    hypotheses = search(tables, Greedy(max_length=T, min_length=min_length))
    for row, table in enumerate(tables):
        path = Path()
        while len(path.tokens) < T and not path.is_finished:
            path = max(continuations(table, path, min_length), key=lambda path: path.log_prob)
        tokens, scores, token_scores, lengths = (field[row, 0] for field in hypotheses)
        assert lengths == len(path.tokens) >= min_length
        assert tuple(tokens[:lengths].tolist()) == path.tokens
        assert (tokens[lengths:] == PAD).all()
        assert not token_scores[lengths:].any()
        np.testing.assert_allclose([scores, token_scores.sum()], [path.log_prob] * 2, atol=1e-5)
    assert len(np.unique(hypotheses.lengths)) > 2


def test_a_row_does_not_depend_on_its_neighbours():
    tables = make_tables(2, 5, T, V)
    strategy = Greedy(max_length=T)
    together = search(tables, strategy)
    for row in range(5):
        alone = search(tables[row : row + 1], strategy)
        for field, expected in zip(alone, together, strict=True):
            np.testing.assert_array_equal(field[0], expected[row])


def test_of_equally_probable_tokens_the_first_is_taken():
    hypotheses = search(np.zeros((1, T, V, V, V), np.float32), Greedy(max_length=T, min_length=3))
    assert hypotheses.tokens.tolist() == [[[1, 1, EOS, PAD, PAD, PAD]]]


def test_without_an_end_the_limit_stops_the_search():
    tables = make_tables(3, B, T, V)
    tables[..., EOS] = -np.inf
    hypotheses = search(tables, Greedy(max_length=T))
    assert (hypotheses.lengths == T).all()
    assert (hypotheses.tokens > EOS).all()


def test_what_is_computed_after_the_end_does_not_matter():
    tables = make_tables(4, 2, T, V)
    tables[0, 0, ..., EOS] = 50.0
    tables[0, 1:] = np.nan
    hypotheses = search(tables, Greedy(max_length=T))
    assert hypotheses.lengths[0].tolist() == [1]
    assert np.isfinite(hypotheses.scores).all()


def test_a_logit_that_is_not_a_number_shows_in_the_score():
    tables = make_tables(5, 1, T, V)
    tables[0, 0, START, START, 2] = np.nan
    assert np.isnan(search(tables, Greedy(max_length=T)).scores).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length": 0}, r"max_length must be at least 1, got 0"),
        ({"min_length": -1}, r"min_length must lie between 0 and max_length = 128, got -1"),
        ({"max_length": 3, "min_length": 4}, r"min_length must lie .* max_length = 3, got 4"),
    ],
)
def test_lengths_that_cannot_be_met_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        Greedy(**options)
