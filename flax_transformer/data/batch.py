"""A batch of sentence pairs, as the model reads it."""

from typing import NamedTuple

import numpy as np

from flax_transformer.array_types import Int


class Batch(NamedTuple):
    """Rows of sentence pairs, padded or packed; every array is int32.

    A row holds one pair or several. ``*_segment_ids`` numbers the pairs of a row from 1 and is 0 on
    padding; attention stays within a segment. ``*_positions`` counts from 0 within each segment.
    ``target`` is what the decoder reads (each sentence shifted right, behind the start token) and
    ``labels`` what it shall predict (the sentence and its end token), aligned position by position.
    ``pair_ids`` holds the index in the corpus of the pair of each target position, -1 on padding.
    """

    source: Int[np.ndarray, "B S"]
    source_segment_ids: Int[np.ndarray, "B S"]
    source_positions: Int[np.ndarray, "B S"]
    target: Int[np.ndarray, "B T"]
    labels: Int[np.ndarray, "B T"]
    target_segment_ids: Int[np.ndarray, "B T"]
    target_positions: Int[np.ndarray, "B T"]
    pair_ids: Int[np.ndarray, "B T"]


def padding_fraction(batch: Batch) -> float:
    """Share of the batch's source and target positions that hold padding, from 0 to 1.

    >>> one = np.array([[1, 1, 1, 0]])
    >>> padding_fraction(Batch(*[one] * 8))
    0.25
    """
    segment_ids = (batch.source_segment_ids, batch.target_segment_ids)
    used = sum(int(np.count_nonzero(ids)) for ids in segment_ids)
    return 1.0 - used / sum(ids.size for ids in segment_ids)


def batch_pair_ids(batch: Batch) -> list[int]:
    """Return the indices in the corpus of the pairs of a batch, in rising order.

    A pair that the batch holds twice, at the turn of an epoch, is there twice.

    >>> positions, ids = np.array([[0, 1, 0, 0]]), np.array([[7, 7, 2, -1]])
    >>> batch = Batch(*[positions] * 7, pair_ids=ids)
    >>> batch_pair_ids(batch)
    [2, 7]
    """
    is_first = (batch.target_positions == 0) & (batch.pair_ids >= 0)
    return sorted(batch.pair_ids[is_first].tolist())
