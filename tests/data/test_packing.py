"""Best-fit packing, and rows filled with pairs."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flax_transformer.data.packing import pack_best_fit
from flax_transformer.data.rows import SpecialTokens, TokenizedPair, fill_rows, limit_length

ROW_LENGTH = 11
SPECIAL = SpecialTokens(bos_id=1, source_pad_id=0, target_pad_id=90)

lengths = st.integers(1, ROW_LENGTH)
pairs_of_lengths = st.lists(st.tuples(lengths, lengths), max_size=40)


def make_pairs(sizes):
    """Pairs without a token in common, so that each can be recognised in a row."""
    return [
        TokenizedPair(
            [100 * n + i + 100 for i in range(source)],
            [100 * n + i + 150 for i in range(target)],
            pair_id=7 * n,
        )
        for n, (source, target) in enumerate(sizes)
    ]


def pack(pairs):
    return pack_best_fit(
        np.array([len(pair.source) for pair in pairs], dtype=int),
        np.array([len(pair.labels) for pair in pairs], dtype=int),
        ROW_LENGTH,
    )


@given(pairs_of_lengths)
def test_rows_hold_every_pair_and_are_not_over_full(sizes):
    rows = pack(make_pairs(sizes))
    assert rows.shape == (len(sizes),)
    for side in (0, 1):
        used = np.bincount(rows, weights=[size[side] for size in sizes] or None)
        assert np.all(used <= ROW_LENGTH)
    assert set(rows.tolist()) == set(range(rows.max(initial=-1) + 1))


@given(pairs_of_lengths)
def test_no_two_rows_would_fit_in_one(sizes):
    rows = pack(make_pairs(sizes))
    used = np.array([np.bincount(rows, weights=list(side)) for side in zip(*sizes, strict=True)])
    for one in range(used.shape[-1] if sizes else 0):
        for other in range(one):
            assert np.any(used[:, one] + used[:, other] > ROW_LENGTH)


def test_perfect_packing_is_found_where_longest_first_finds_it():
    sizes = [(5, 5), (2, 2), (6, 6), (9, 9)]
    assert pack(make_pairs(sizes)).max() == 1


def test_a_pair_longer_than_a_row_is_refused():
    with pytest.raises(ValueError, match="row_length 11, got 12"):
        pack_best_fit(np.array([3, 12]), np.array([3, 3]), ROW_LENGTH)


@given(pairs_of_lengths)
def test_filled_rows_give_every_pair_back(sizes):
    pairs = make_pairs(sizes)
    rows = pack(pairs)
    batch = fill_rows(pairs, rows, num_rows=len(sizes) + 1, row_length=ROW_LENGTH, special=SPECIAL)
    found = []
    for row in range(len(sizes) + 1):
        for segment in range(1, batch.source_segment_ids[row].max() + 1):
            inside = batch.source_segment_ids[row] == segment
            inside_target = batch.target_segment_ids[row] == segment
            source, labels = batch.source[row][inside], batch.labels[row][inside_target]
            (pair_id,) = set(batch.pair_ids[row][inside_target].tolist())
            found.append(TokenizedPair(source.tolist(), labels.tolist(), pair_id))
            # What the decoder reads is what it shall predict, one step later.
            assert batch.target[row][inside_target].tolist() == [1, *labels[:-1]]
            assert batch.source_positions[row][inside].tolist() == list(range(len(source)))
            assert batch.target_positions[row][inside_target].tolist() == list(range(len(labels)))
            # A segment lies in one piece.
            assert np.ptp(np.flatnonzero(inside)) == len(source) - 1
            assert np.ptp(np.flatnonzero(inside_target)) == len(labels) - 1
    assert sorted(found) == sorted(pairs)


@given(pairs_of_lengths)
def test_padding_is_marked_everywhere(sizes):
    pairs = make_pairs(sizes)
    batch = fill_rows(
        pairs, pack(pairs), num_rows=len(sizes) + 1, row_length=ROW_LENGTH, special=SPECIAL
    )
    source_padding, target_padding = batch.source_segment_ids == 0, batch.target_segment_ids == 0
    assert np.all((batch.source == 0) == source_padding)
    assert np.all((batch.target == 90) == target_padding)
    assert np.all((batch.labels == 90) == target_padding)
    assert np.all((batch.pair_ids == -1) == target_padding)
    assert not batch.source_positions[source_padding].any()
    assert not batch.target_positions[target_padding].any()
    assert all(array.dtype == np.int32 for array in batch)


def test_cutting_keeps_the_end_token_and_dropping_keeps_the_order():
    pairs = [TokenizedPair([5, 6, 7, 2], [8, 2], 0), TokenizedPair([5, 2], [8, 9, 2], 1)]
    assert limit_length(pairs, 3, "drop") == [pairs[1]]
    assert limit_length(pairs, 3, "cut") == [TokenizedPair([5, 6, 2], [8, 2], 0), pairs[1]]
    assert limit_length(pairs, 4, "cut") == pairs
