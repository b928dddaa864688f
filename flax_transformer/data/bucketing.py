"""Length bucketing: batches of sentence pairs of similar length, in few shapes."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from flax_transformer.array_types import Int
from flax_transformer.errors import InputError

_SHORTEST_ROW = 8
_LENGTH_MULTIPLE = 4


class Bucket(NamedTuple):
    """The shape of a batch."""

    num_rows: int
    row_length: int


class BucketBatch(NamedTuple):
    """A batch that is not filled yet: which pairs, at most ``bucket.num_rows``, in which shape."""

    pairs: Int[np.ndarray, " N"]
    bucket: Bucket


def make_buckets(
    batch_tokens: int, max_length: int, *, growth: float, row_multiple: int
) -> list[Bucket]:
    """Return the shapes of batches, from short rows to long.

    Row lengths start at 8, grow by the factor ``growth``, rounded up to a multiple of 4, and end
    with ``max_length``: so the padding is bounded in proportion and the shapes stay few. Each shape
    has as many rows as ``batch_tokens`` allows, rounded down to a multiple of ``row_multiple``.

    Raises:
        InputError: ``batch_tokens`` does not allow ``row_multiple`` of the longest rows.

    >>> for bucket in make_buckets(120, 20, growth=1.5, row_multiple=2):
    ...     print(bucket)
    Bucket(num_rows=14, row_length=8)
    Bucket(num_rows=10, row_length=12)
    Bucket(num_rows=6, row_length=20)
    """
    lengths = []
    length = _SHORTEST_ROW
    while length < max_length:
        lengths.append(length)
        length = max(length + _LENGTH_MULTIPLE, _round_up(length * growth, _LENGTH_MULTIPLE))
    # The longest first: it needs the largest budget, which a refusal names.
    longest_first = [max_length, *reversed(lengths)]
    buckets = [Bucket(count_rows(batch_tokens, n, row_multiple), n) for n in longest_first]
    return buckets[::-1]


def count_rows(batch_tokens: int, row_length: int, row_multiple: int) -> int:
    """Return how many rows a batch has: the largest multiple of ``row_multiple`` in the budget.

    Raises:
        InputError: there is not room for ``row_multiple`` rows.

    >>> count_rows(4096, 60, row_multiple=8)
    64
    """
    num_rows = batch_tokens // row_length // row_multiple * row_multiple
    if num_rows == 0:
        raise InputError(
            f"batch_tokens must be at least {row_length * row_multiple} ({row_multiple} rows, one "
            f"for each part of the batch, of {row_length} tokens), got {batch_tokens}. "
            "Raise batch_tokens or lower max_length."
        )
    return num_rows


def cut_into_batches(
    lengths: Int[np.ndarray, " N"], buckets: Sequence[Bucket]
) -> list[BucketBatch]:
    """Cut pairs of these lengths into batches of similar length, from long to short.

    The longest pair left decides the bucket, and the next longest fill its rows: so only the last
    batch, of the shortest pairs, can have rows to spare.

    >>> short, long = Bucket(3, 4), Bucket(2, 8)
    >>> for batch in cut_into_batches(np.array([2, 7, 3, 4, 2, 1]), [short, long]):
    ...     print(batch.pairs.tolist(), batch.bucket.row_length)
    [1, 3] 8
    [2, 0, 4] 4
    [5] 4
    """
    order = np.argsort(-lengths, kind="stable")
    row_lengths = np.array([bucket.row_length for bucket in buckets])
    batches = []
    start = 0
    while start < len(order):
        bucket = buckets[np.searchsorted(row_lengths, lengths[order[start]])]
        batches.append(BucketBatch(order[start : start + bucket.num_rows], bucket))
        start += bucket.num_rows
    return batches


def _round_up(number: float, multiple: int) -> int:
    return math.ceil(number / multiple) * multiple
