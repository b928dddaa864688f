"""The batches of each task, as the models read them."""

from typing import NamedTuple, TypeAlias

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


class TextBatch(NamedTuple):
    """Rows of text whose tokens are predicted, packed; every array is int32.

    ``tokens`` is what the model reads and ``labels`` what it shall predict, aligned position by
    position; ``is_predicted`` is 1 where it shall, else 0. Segments and positions are as those of
    :class:`Batch`. ``pair_ids`` holds the index of the piece of text of each position, -1 on
    padding.
    """

    tokens: Int[np.ndarray, "B T"]
    segment_ids: Int[np.ndarray, "B T"]
    positions: Int[np.ndarray, "B T"]
    labels: Int[np.ndarray, "B T"]
    is_predicted: Int[np.ndarray, "B T"]
    pair_ids: Int[np.ndarray, "B T"]


class LabelledBatch(NamedTuple):
    """Rows of one text each, padded, with a class for each; every array is int32.

    ``labels`` holds the number of the class from 0, -1 for a row without a text. The others are as
    those of :class:`TextBatch`.
    """

    tokens: Int[np.ndarray, "B T"]
    segment_ids: Int[np.ndarray, "B T"]
    positions: Int[np.ndarray, "B T"]
    labels: Int[np.ndarray, " B"]
    pair_ids: Int[np.ndarray, "B T"]


AnyBatch: TypeAlias = Batch | TextBatch | LabelledBatch


def padding_fraction(batch: AnyBatch) -> float:
    """Share of the batch's positions, of all that is read, that hold padding, from 0 to 1.

    >>> one = np.array([[1, 1, 1, 0]])
    >>> padding_fraction(Batch(*[one] * 8))
    0.25
    """
    segment_ids = [rows for name, rows in batch._asdict().items() if name.endswith("segment_ids")]
    used = sum(int(np.count_nonzero(ids)) for ids in segment_ids)
    return 1.0 - used / sum(ids.size for ids in segment_ids)


def batch_pair_ids(batch: AnyBatch) -> list[int]:
    """Return the indices in the corpus of the pairs (or texts) of a batch, in rising order.

    What the batch holds twice, at the turn of an epoch, is there twice.

    >>> positions, ids = np.array([[0, 1, 0, 0]]), np.array([[7, 7, 2, -1]])
    >>> batch = Batch(*[positions] * 7, pair_ids=ids)
    >>> batch_pair_ids(batch)
    [2, 7]
    """
    positions = batch.target_positions if isinstance(batch, Batch) else batch.positions
    is_first = (positions == 0) & (batch.pair_ids >= 0)
    return sorted(batch.pair_ids[is_first].tolist())
