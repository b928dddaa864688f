"""Batches of few shapes, so that few programs are compiled."""

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from flax_transformer.array_types import Bool, Int
from flax_transformer.decoding.length_buckets import bucket_length
from flax_transformer.errors import InputError

_ROW_STEP = 4


class PlannedBatch(NamedTuple):
    """Which rows share a batch of ``num_rows`` by ``length`` positions."""

    indices: list[int]
    num_rows: int
    length: int


def plan_batches(
    lengths: Sequence[int], *, batch_tokens: int, max_length: int, row_multiple: int = 1
) -> list[PlannedBatch]:
    """Sort rows by length into batches that are padded to few shapes, longest rows first.

    The rows of a batch are of one bucket, whatever else is there: what depends on the padded
    length is a row's own. A bucket of more than one batch has one shape; a smaller one has 1, 4,
    16, 64, … times ``row_multiple`` rows. Rows that are too many are to be filled and ignored.

    Args:
        lengths: tokens of each row, at most ``max_length``.
        batch_tokens: positions of a batch at most, padding included; where ``row_multiple`` rows
            have more, they are a batch.
        max_length: longest bucket.
        row_multiple: the number of rows of every batch is a multiple of it.

    Raises:
        InputError: ``batch_tokens`` is under 1.

    >>> for batch in plan_batches([3, 17, 2], batch_tokens=32, max_length=100):
    ...     print(*batch)
    [1] 1 32
    [0, 2] 2 16
    """
    if batch_tokens < 1:
        raise InputError(f"batch_tokens must be at least 1, got {batch_tokens}.")
    buckets: defaultdict[int, list[int]] = defaultdict(list)
    for index in sorted(range(len(lengths)), key=lambda index: -lengths[index]):
        buckets[bucket_length(lengths[index], max_length)].append(index)
    batches = []
    for length, indices in sorted(buckets.items(), reverse=True):
        max_rows = max(1, batch_tokens // (length * row_multiple))
        num_groups = _round_up_rows(math.ceil(len(indices) / row_multiple), max_rows)
        num_rows = num_groups * row_multiple
        for start in range(0, len(indices), num_rows):
            batches.append(PlannedBatch(indices[start : start + num_rows], num_rows, length))
    return batches


def pad_rows(
    rows: Sequence[Sequence[int]], *, num_rows: int, length: int, pad_id: int
) -> Int[np.ndarray, "B S"]:
    """Return ``rows`` as an array padded on the right; copies of the first fill up the rows.

    A copy ends its search when its original does, so that it never keeps a batch waiting.

    >>> pad_rows([[5, 6], [7]], num_rows=3, length=3, pad_id=0)
    array([[5, 6, 0],
           [7, 0, 0],
           [5, 6, 0]], dtype=int32)
    """
    padded = np.full((num_rows, length), pad_id, np.int32)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    padded[len(rows) :] = padded[0]
    return padded


def make_length_mask(
    rows: Sequence[Sequence[int]], *, num_rows: int, length: int
) -> Bool[np.ndarray, "B S"]:
    """Return True on the tokens of what :func:`pad_rows` returns for the same arguments.

    >>> make_length_mask([[5, 6], [7]], num_rows=3, length=3).astype(int)
    array([[1, 1, 0],
           [1, 0, 0],
           [1, 1, 0]])
    """
    lengths = pad_rows([[len(row)] for row in rows], num_rows=num_rows, length=1, pad_id=0)
    return np.arange(length) < lengths


def _round_up_rows(count: int, max_rows: int) -> int:
    rows = 1
    while rows < count:
        rows *= _ROW_STEP
    return min(rows, max_rows)
