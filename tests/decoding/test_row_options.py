"""Limits and prefixes of rows: every search against the same search of each row alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
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
from flax_transformer.decoding.greedy import Greedy, greedy_search
from flax_transformer.decoding.row_options import (
    NO_OPTIONS,
    NO_TOKEN,
    RowOptions,
    check_padded_tokens,
)
from flax_transformer.decoding.sampling import Sampling, make_row_keys, sample
from flax_transformer.decoding.token_constraints import SuppressedTokens
from flax_transformer.errors import InputError

T, V = 5, 3
STRATEGIES = (
    Greedy(max_length=T),
    Sampling(max_length=T, num_samples=2),
    BeamSearch(max_length=T, beam_size=3, num_best=2, early_stopping="bound"),
)
MIN_LENGTHS = np.array([0, 3, 2, 5, 1, 4])
MAX_LENGTHS = np.array([4, 3, 5, 2, 1, 5])


@functools.partial(jax.jit, static_argnames="strategy")
def search(tables, strategy, rows=NO_OPTIONS, row_numbers=None):
    starts = jnp.full(len(tables), START)
    ids = {"strategy": strategy, "eos_id": EOS, "pad_id": PAD}
    if isinstance(strategy, Greedy):
        return greedy_search(table_step, init_cache(tables, 1), starts, rows=rows, **ids)
    if isinstance(strategy, Sampling):
        keys = None if row_numbers is None else make_row_keys(strategy.seed, row_numbers)
        cache = init_cache(tables, strategy.num_samples)
        return sample(table_step, cache, starts, rows=rows, row_keys=keys, **ids)
    cache = init_cache(tables, strategy.beam_size)
    return beam_search(table_step, reorder, cache, starts, inputs=BeamInputs(options=rows), **ids)


def outputs_of(hypotheses):
    return [
        [tuple(ids[:length]) for ids, length in zip(tokens, lengths, strict=True)]
        for tokens, lengths in zip(
            hypotheses.tokens.tolist(), hypotheses.lengths.tolist(), strict=True
        )
    ]


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: type(strategy).__name__)
def test_lengths_of_a_row_are_what_the_strategy_would_ask_of_it_alone(strategy):
    tables = make_tables(51, len(MAX_LENGTHS), T, V)
    rows = RowOptions(min_lengths=MIN_LENGTHS, max_lengths=MAX_LENGTHS)
    outputs = outputs_of(search(tables, strategy, rows))
    for row, (shortest, longest) in enumerate(zip(MIN_LENGTHS, MAX_LENGTHS, strict=True)):
        # Row 3 is asked for more than it may have: the maximum holds.
        shortest = min(shortest, longest)
        for tokens in outputs[row]:
            assert shortest <= len(tokens) <= longest
            assert tokens[-1] == EOS or len(tokens) == longest
    # The program of the strategy that asks all rows for the same: any one of them alone.
    row = 2
    alone = type(strategy)(**{**vars(strategy), "min_length": int(MIN_LENGTHS[row])})
    expected = search(tables[row : row + 1], alone, row_numbers=np.array([row]))
    assert outputs_of(expected)[0] == outputs[row]


def test_beams_of_the_whole_space_are_exhaustive_search_between_the_limits_of_each_row():
    tables = make_tables(52, len(MAX_LENGTHS), T, V)
    tables[..., EOS] += 1.0
    strategy = BeamSearch(
        beam_size=50, num_best=6, max_length=T, early_stopping="bound", length_penalty=1.4
    )
    rows = RowOptions(min_lengths=MIN_LENGTHS, max_lengths=MAX_LENGTHS)
    hypotheses = search(tables, strategy, rows)
    for row, (shortest, longest) in enumerate(zip(MIN_LENGTHS, MAX_LENGTHS, strict=True)):
        paths = all_paths(tables[row, :longest], min(shortest, longest))
        best = sorted(paths, key=lambda path: path.score("gnmt", 1.4), reverse=True)[:6]
        found = outputs_of(hypotheses)[row][: len(best)]
        assert found == [path.tokens for path in best]
        assert (hypotheses.scores[row, len(best) :] == -np.inf).all()


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda strategy: type(strategy).__name__)
def test_each_row_begins_with_its_prefix_and_goes_on_as_if_it_had_been_chosen(strategy):
    tables = make_tables(53, 4, T, V)
    tables[:, :2, ..., EOS] = -9.0
    prefixes = np.full((4, 3), NO_TOKEN)
    prefixes[0, :2] = [2, 1]
    prefixes[1, :1] = [1]
    prefixes[2] = [1, 1, 2]
    # What processors forbid or change is no matter in a prefix.
    forbidding = type(strategy)(**{**vars(strategy), "processors": (SuppressedTokens((1,)),)})
    hypotheses = search(tables, forbidding, RowOptions(prefixes=prefixes))
    for row, length in enumerate((2, 1, 3, 0)):
        for w, tokens in enumerate(outputs_of(hypotheses)[row]):
            assert tokens[:length] == tuple(prefixes[row, :length])
            # From there on, and from the first token where there is no prefix, they are.
            assert 1 not in tokens[length:]
            so_far = (START, START)
            for step, token in enumerate(tokens):
                logits = tables[row, step][so_far[-2:]].astype(np.float64)
                expected = logits[token] - np.logaddexp.reduce(logits)
                np.testing.assert_allclose(
                    hypotheses.token_scores[row, w, step], expected, atol=1e-5
                )
                so_far = (*so_far, token)


def test_a_prefix_longer_than_the_output_is_cut():
    prefixes = np.array([[2, 1, 2, 1, 1, 2, 2]])
    hypotheses = search(make_tables(54, 1, T, V), STRATEGIES[0], RowOptions(prefixes=prefixes))
    assert hypotheses.tokens.tolist() == [[[2, 1, 2, 1, 1]]]


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([[3, 4]], r"prefixes must have 2 rows .* got the shape \(1, 2\)"),
        ([[], []], r"prefixes must have 2 rows .* got the shape \(2, 0\). Give None"),
        ([[3, -1, -1], [4, -1, 4]], r"prefixes must be padded with -1 on the right"),
        ([[3, 4], [-2, 4]], r"prefixes must hold tokens from 0 to 6, got -2 to 4"),
        ([[3, 7], [-1, -1]], r"prefixes must hold tokens from 0 to 6, got 3 to 7"),
        ([[3, 4], [5, EOS]], r"prefixes must not hold the end token, got 0"),
    ],
)
def test_rows_of_tokens_that_cannot_be_are_refused(tokens, message):
    with pytest.raises(InputError, match=message):
        check_padded_tokens("prefixes", np.array(tokens), num_rows=2, vocab_size=7, eos_id=EOS)


def test_rows_of_padding_alone_can_be():
    tokens = np.array([[[3, NO_TOKEN], [6, 1]], [[NO_TOKEN] * 2] * 2])
    check_padded_tokens("constraints", tokens, num_rows=2, vocab_size=7, eos_id=EOS)
