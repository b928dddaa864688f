import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flax_transformer.decoding.length_buckets import bucket_length
from flax_transformer.errors import InputError
from flax_transformer.evaluation.batching import make_length_mask, plan_batches


@given(
    lengths=st.lists(st.integers(1, 97), max_size=200),
    batch_tokens=st.integers(1, 700),
    row_multiple=st.integers(1, 9),
)
def test_every_row_is_in_one_batch_that_it_fits(lengths, batch_tokens, row_multiple):
    batches = plan_batches(
        lengths, batch_tokens=batch_tokens, max_length=97, row_multiple=row_multiple
    )
    assert sorted(index for batch in batches for index in batch.indices) == list(
        range(len(lengths))
    )
    for batch in batches:
        assert 1 <= len(batch.indices) <= batch.num_rows
        assert batch.num_rows % row_multiple == 0
        assert batch.num_rows == row_multiple or batch.num_rows * batch.length <= batch_tokens
        # The padded length is a row's own, whatever else is in the batch.
        assert {bucket_length(lengths[index], 97) for index in batch.indices} == {batch.length}


def test_shapes_are_few():
    rng = np.random.default_rng(0)
    shapes = {
        (batch.num_rows, batch.length)
        for size in rng.integers(1, 3000, size=50)
        for batch in plan_batches(
            rng.integers(1, 201, size=size).tolist(), batch_tokens=4096, max_length=201
        )
    }
    # Eight lengths, and five row counts at most: 1, 4, 16, 64 and that of a full batch.
    assert len({length for _, length in shapes}) == 8
    assert len(shapes) <= 40


def test_mask_marks_tokens_that_equal_the_padding():
    mask = make_length_mask([[0, 5, 0], [7]], num_rows=2, length=4)
    np.testing.assert_array_equal(mask, [[True, True, True, False], [True, False, False, False]])


def test_batch_tokens_must_be_positive():
    with pytest.raises(InputError, match="batch_tokens must be at least 1, got 0"):
        plan_batches([1], batch_tokens=0, max_length=8)
