"""Shapes of length buckets, and windows cut into them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flax_transformer.data.bucketing import count_rows, cut_into_batches, make_buckets
from flax_transformer.errors import InputError

MAX_LENGTH = 37
BUCKETS = make_buckets(151, MAX_LENGTH, growth=1.5, row_multiple=3)


@given(
    max_length=st.integers(2, 300),
    growth=st.floats(1.01, 3.0),
    row_multiple=st.integers(1, 8),
    spare=st.integers(0, 5000),
)
def test_shapes_keep_the_budget_and_the_row_multiple(max_length, growth, row_multiple, spare):
    batch_tokens = max_length * row_multiple + spare
    buckets = make_buckets(batch_tokens, max_length, growth=growth, row_multiple=row_multiple)
    row_lengths = [bucket.row_length for bucket in buckets]
    assert row_lengths == sorted(set(row_lengths))
    assert row_lengths[-1] == max_length
    for num_rows, row_length in buckets:
        assert num_rows % row_multiple == 0
        assert batch_tokens - row_multiple * row_length < num_rows * row_length <= batch_tokens


def test_shapes_are_few():
    assert len(make_buckets(4096, 128, growth=1.25, row_multiple=1)) <= 12


@given(st.lists(st.integers(1, MAX_LENGTH), max_size=80))
def test_batches_hold_every_pair_once_in_rows_long_enough(lengths):
    lengths = np.array(lengths, dtype=int)
    batches = cut_into_batches(lengths, BUCKETS)
    members = [pair for batch in batches for pair in batch.pairs.tolist()]
    assert sorted(members) == list(range(len(lengths)))
    for batch in batches:
        longest = lengths[batch.pairs].max()
        shorter = [b.row_length for b in BUCKETS if b.row_length < batch.bucket.row_length]
        assert max(shorter, default=0) < longest <= batch.bucket.row_length
        assert batch.bucket in BUCKETS


@given(st.lists(st.integers(1, MAX_LENGTH), max_size=80))
def test_only_the_last_batch_has_rows_to_spare(lengths):
    batches = cut_into_batches(np.array(lengths, dtype=int), BUCKETS)
    assert all(len(batch.pairs) == batch.bucket.num_rows for batch in batches[:-1])
    assert all(0 < len(batch.pairs) <= batch.bucket.num_rows for batch in batches[-1:])


def test_a_budget_too_small_for_the_shards_is_refused():
    with pytest.raises(InputError, match=r"batch_tokens must be at least 80 .* got 79"):
        count_rows(79, 10, row_multiple=8)
