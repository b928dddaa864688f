"""Lexical constraints against exhaustive search, and with beams that are narrow."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
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
from flax_transformer.decoding.beam_state import BeamInputs
from flax_transformer.decoding.beam_strategy import BeamSearch
from flax_transformer.decoding.forced_token import ForcedToken
from flax_transformer.decoding.row_options import NO_TOKEN, RowOptions

T, V = 5, 3
# At the last step 2⁴ unfinished hypotheses have 3 continuations each.
WHOLE_SPACE = 48


@functools.partial(jax.jit, static_argnames="strategy")
def search(tables, strategy, constraints=None, prefixes=None):
    return beam_search(
        table_step,
        reorder,
        init_cache(tables, strategy.beam_size),
        jnp.full(len(tables), START),
        strategy=strategy,
        eos_id=EOS,
        pad_id=PAD,
        inputs=BeamInputs(options=RowOptions(prefixes=prefixes), constraints=constraints),
    )


def pad_constraints(rows, size=(2, 3)):
    padded = np.full((len(rows), *size), NO_TOKEN)
    for row, words in enumerate(rows):
        for index, word in enumerate(words):
            padded[row, index, : len(word)] = word
    return padded


def holds(tokens, word):
    return any(tokens[i : i + len(word)] == word for i in range(len(tokens) - len(word) + 1))


def count_held(tokens, words):
    begun = [
        max(n for n in range(len(word) + 1) if tokens[len(tokens) - n :] == word[:n])
        for word in words
        if not holds(tokens, word)
    ]
    return sum(len(word) for word in words if holds(tokens, word)) + max(begun, default=0)


def outputs_of(hypotheses, row):
    return [
        tuple(ids[:length].tolist())
        for ids, length in zip(hypotheses.tokens[row], hypotheses.lengths[row], strict=True)
    ]


words = st.lists(st.integers(1, V - 1), min_size=1, max_size=3).map(tuple)
rows_of_words = st.lists(st.lists(words, max_size=2), min_size=4, max_size=4)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=rows_of_words, seed=st.integers(0, 1000), impossible=st.sampled_from([0.0, 0.4]))
def test_a_beam_of_the_whole_space_is_exhaustive_search_of_what_holds_them(rows, seed, impossible):
    tables = make_tables(seed, 4, T, V, impossible=impossible)
    strategy = BeamSearch(
        beam_size=WHOLE_SPACE, num_best=3, max_length=T, early_stopping="bound", length_penalty=1.0
    )
    hypotheses = search(tables, strategy, pad_constraints(rows))
    for row, (table, words) in enumerate(zip(tables, rows, strict=True)):
        paths = all_paths(table)
        allowed = [path for path in paths if all(holds(path.tokens, word) for word in words)]
        if not allowed:
            # What is as long as it may be and holds the most.
            longest = [path for path in paths if len(path.tokens) == T]
            most = max((count_held(path.tokens, words) for path in longest), default=0)
            allowed = [path for path in longest if count_held(path.tokens, words) == most]
        best = sorted(allowed, key=lambda path: path.score("gnmt", 1.0), reverse=True)[:3]
        found = outputs_of(hypotheses, row)
        assert found[: len(best)] == [path.tokens for path in best]
        assert found[len(best) :] == [()] * (3 - len(best))
        np.testing.assert_allclose(
            hypotheses.scores[row, : len(best)],
            [path.score("gnmt", 1.0) for path in best],
            atol=2e-5,
        )


# Six tokens of constraints, and one to end with.
ROOM = 7
NARROW = (
    BeamSearch(beam_size=1, max_length=ROOM),
    BeamSearch(beam_size=3, num_best=3, max_length=ROOM),
)


@pytest.mark.parametrize("strategy", NARROW, ids=["one", "three"])
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(rows=rows_of_words, seed=st.integers(0, 1000))
def test_outputs_of_a_narrow_beam_hold_them_all_where_there_is_room(strategy, rows, seed):
    tables = make_tables(seed, 4, ROOM, V)
    tables[..., EOS] += 3.0
    hypotheses = search(tables, strategy, pad_constraints(rows))
    for row, words in enumerate(rows):
        for tokens in filter(None, outputs_of(hypotheses, row)):
            assert all(holds(tokens, word) for word in words), (tokens, words)
    assert np.isfinite(hypotheses.scores[:, 0]).all()


def test_rows_without_constraints_are_searched_as_ever_and_padding_does_not_matter():
    tables = make_tables(81, 4, ROOM, V)
    plain = search(tables, NARROW[1])
    rows = [[], [(2, 2)], [(1, 2, 2), (2, 1)], []]
    some = search(tables, NARROW[1], pad_constraints(rows))
    more = search(tables, NARROW[1], pad_constraints(rows, size=(4, 5)))
    for row in range(4):
        assert outputs_of(more, row) == outputs_of(some, row)
        is_plain = outputs_of(some, row) == outputs_of(plain, row)
        assert is_plain == (not rows[row])
        if is_plain:
            np.testing.assert_array_equal(some.scores[row], plain.scores[row])


def test_a_constraint_may_begin_in_a_prefix():
    tables = make_tables(82, 1, T, V)
    constraints = pad_constraints([[(2, 1, 2)]])
    hypotheses = search(
        tables, BeamSearch(beam_size=2, max_length=T), constraints, np.array([[1, 2, 1]])
    )
    assert outputs_of(hypotheses, 0)[0][:4] == (1, 2, 1, 2)


def test_an_end_that_is_forced_at_the_limit_is_there_with_constraints():
    tables = make_tables(3, 4, T, V)
    forced = BeamSearch(beam_size=4, max_length=T, processors=(ForcedToken(EOS, T - 1),))
    rows = [[(1, 2)], [(2, 2)], [(1, 1, 2)], [(1,)]]
    found = search(tables, forced, pad_constraints(rows))
    for row, words in enumerate(rows):
        best = outputs_of(found, row)[0]
        assert best[-1] == EOS
        assert all(holds(best, word) for word in words)
