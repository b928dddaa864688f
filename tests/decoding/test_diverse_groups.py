"""Diverse beam search against lists in plain Python, and its relation to plain beam search."""

import collections
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
    reorder,
    table_step,
)

from flax_transformer.decoding.beam_search import beam_search
from flax_transformer.decoding.beam_state import BeamInputs
from flax_transformer.decoding.beam_strategy import BeamSearch
from flax_transformer.decoding.row_options import RowOptions

B, T, V = 6, 5, 4


@functools.partial(jax.jit, static_argnames="strategy")
def search(tables, strategy, max_lengths=None):
    return beam_search(
        table_step,
        reorder,
        init_cache(tables, strategy.beam_size),
        jnp.full(len(tables), START),
        strategy=strategy,
        eos_id=EOS,
        pad_id=PAD,
        inputs=BeamInputs(options=RowOptions(max_lengths=max_lengths)),
    )


def outputs_of(hypotheses, row):
    return [
        tuple(ids[:length].tolist())
        for ids, length in zip(hypotheses.tokens[row], hypotheses.lengths[row], strict=True)
    ]


def diverse_search(table, strategy):
    """Search one row by the description of the groups, with lists."""
    width = strategy.group_size
    groups = [([Path()], []) for _ in range(strategy.num_groups)]
    for step in range(strategy.max_length):
        counts = collections.Counter()
        for number, (unfinished, finished) in enumerate(groups):
            longer = [c for path in unfinished for c in continuations(table, path)]
            longer.sort(
                key=lambda path: (
                    path.log_prob - strategy.diversity_strength * counts[path.tokens[-1]]
                ),
                reverse=True,
            )
            counts.update(path.tokens[-1] for path in longer[:width])
            is_last = step + 1 == strategy.max_length
            finished += [path for path in longer[:width] if path.is_finished or is_last]
            finished.sort(key=lambda path: path.score("gnmt", 0.6), reverse=True)
            going_on = [path for path in longer[: 2 * width] if not path.is_finished]
            groups[number] = going_on[:width], finished[:width]
    found = {path.tokens: path for _, finished in groups for path in finished}
    return sorted(found.values(), key=lambda path: path.score("gnmt", 0.6), reverse=True)


@pytest.mark.parametrize(("beam_size", "num_groups"), [(6, 3), (4, 4)])
def test_groups_are_those_of_a_plain_search(beam_size, num_groups):
    tables = make_tables(71, B, T, V)
    strategy = BeamSearch(
        beam_size=beam_size,
        num_best=beam_size,
        max_length=T,
        early_stopping="never",
        num_groups=num_groups,
        diversity_strength=1.7,
    )
    hypotheses = search(tables, strategy)
    for row, table in enumerate(tables):
        expected = diverse_search(table, strategy)[:beam_size]
        assert outputs_of(hypotheses, row)[: len(expected)] == [path.tokens for path in expected]
        # Scores are of the model's probabilities alone.
        np.testing.assert_allclose(
            hypotheses.scores[row, : len(expected)],
            [path.score("gnmt", 0.6) for path in expected],
            atol=2e-5,
        )
        assert (hypotheses.scores[row, len(expected) :] == -np.inf).all()


def test_without_strength_every_group_is_the_same_beam_and_its_outputs_come_once():
    tables = make_tables(72, B, T, V)
    options = {"max_length": T, "num_best": 2, "early_stopping": "bound"}
    groups = search(
        tables, BeamSearch(beam_size=6, num_groups=3, diversity_strength=0.0, **options)
    )
    plain = search(tables, BeamSearch(beam_size=2, **options))
    for field, expected in zip(groups, plain, strict=True):
        np.testing.assert_array_equal(field, expected)


def test_strength_makes_outputs_differ_more():
    tables = make_tables(73, 20, T, V)
    num_first_tokens = []
    for strength in (0.0, 5.0):
        strategy = BeamSearch(
            beam_size=4,
            num_best=4,
            max_length=T,
            num_groups=2,
            diversity_strength=strength,
            early_stopping="bound",
        )
        hypotheses = search(tables, strategy)
        num_first_tokens.append(
            sum(
                len({tokens[0] for tokens in outputs_of(hypotheses, row) if tokens})
                for row in range(20)
            )
        )
    assert num_first_tokens[0] < num_first_tokens[1]


def test_rows_keep_their_own_limits_and_do_not_depend_on_their_neighbours():
    tables = make_tables(74, B, T, V)
    strategy = BeamSearch(beam_size=4, num_best=3, max_length=T, num_groups=2)
    max_lengths = np.array([2, 5, 1, 3, 4, 5])
    together = search(tables, strategy, max_lengths)
    for row in range(B):
        alone = search(tables[row : row + 1], strategy, max_lengths[row : row + 1])
        assert outputs_of(alone, 0) == outputs_of(together, row)
        assert (together.lengths[row] <= max_lengths[row]).all()
