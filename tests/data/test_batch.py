"""The fraction of padding that a batch reports."""

import numpy as np
import pytest

from flax_transformer.data.batch import Batch, padding_fraction


def make_batch(source_segment_ids, target_segment_ids):
    source, target = np.array(source_segment_ids), np.array(target_segment_ids)
    return Batch(
        source=source,
        source_segment_ids=source,
        source_positions=source,
        target=target,
        labels=target,
        target_segment_ids=target,
        target_positions=target,
        pair_ids=target,
    )


def test_counts_source_and_target_together():
    batch = make_batch([[1, 2, 2], [1, 0, 0]], [[1, 1, 2, 2, 0], [0, 0, 0, 0, 0]])
    assert padding_fraction(batch) == pytest.approx(1 - 8 / 16)


def test_full_and_empty_batches_are_the_extremes():
    assert padding_fraction(make_batch([[1, 1]], [[1, 2]])) == 0.0
    assert padding_fraction(make_batch([[0, 0]], [[0, 0]])) == 1.0
