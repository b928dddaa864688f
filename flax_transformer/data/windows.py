"""From a window of sentence pairs to packed rows or to bucketed batches.

Both are pure functions of the corpus, the indices of the pairs and the random generator, so that a
window can be made again from its number when training resumes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from flax_transformer.data.batch import AnyBatch, Batch
from flax_transformer.data.bucketing import Bucket, cut_into_batches
from flax_transformer.data.packing import pack_best_fit
from flax_transformer.data.rows import (
    SpecialTokens,
    TokenizedPair,
    fill_rows,
    limit_length,
    longer_side,
)
from flax_transformer.data.tokens import ReadTokens


@dataclass(frozen=True, kw_only=True)
class PairPreparation:
    """Read the tokens of the pairs of a window; drop, or cut, those that are too long."""

    read_tokens: ReadTokens = field(repr=False)
    special: SpecialTokens
    max_length: int
    long_pairs: Literal["drop", "cut"]

    def __call__(self, pair_ids: Sequence[int], rng: np.random.Generator) -> list[TokenizedPair]:
        """Return the usable pairs of a window, in its order; ``rng`` draws their segmentations."""
        return limit_length(self.read_tokens(pair_ids, rng), self.max_length, self.long_pairs)


@dataclass(frozen=True, kw_only=True)
class PackedWindow:
    """Pack a window of pairs into rows of ``prepare.max_length``."""

    prepare: PairPreparation

    def __call__(self, pair_ids: Sequence[int], rng: np.random.Generator) -> list[Batch]:
        """Return the rows, in random order, each as a batch without its first axis."""
        usable = self.prepare(pair_ids, rng)
        row_indices = pack_best_fit(
            np.array([len(pair.source) for pair in usable], dtype=np.int64),
            np.array([len(pair.labels) for pair in usable], dtype=np.int64),
            self.prepare.max_length,
        )
        num_rows = int(row_indices.max(initial=-1)) + 1
        rows = fill_rows(
            usable,
            rng.permutation(num_rows)[row_indices],
            num_rows=num_rows,
            row_length=self.prepare.max_length,
            special=self.prepare.special,
        )
        return [Batch(*arrays) for arrays in zip(*rows, strict=True)]


@dataclass(frozen=True, kw_only=True)
class BucketedWindow:
    """Sort a window of pairs by length, cut it into batches and keep one part of their rows."""

    prepare: PairPreparation
    buckets: Sequence[Bucket]
    part_index: int
    part_count: int

    def __call__(self, pair_ids: Sequence[int], rng: np.random.Generator) -> list[Batch]:
        """Return the part ``part_index`` of ``part_count`` of each batch, in random order."""
        usable = self.prepare(pair_ids, rng)
        lengths = np.array([longer_side(pair) for pair in usable], dtype=np.int64)
        plan = cut_into_batches(lengths, self.buckets)
        batches = []
        for index in rng.permutation(len(plan)).tolist():
            members, bucket = plan[index]
            rows = fill_rows(
                [usable[member] for member in members],
                # At random, so that no part gets all the long pairs or all the empty rows.
                rng.permutation(bucket.num_rows)[: len(members)],
                num_rows=bucket.num_rows,
                row_length=bucket.row_length,
                special=self.prepare.special,
            )
            size = bucket.num_rows // self.part_count
            mine = slice(self.part_index * size, (self.part_index + 1) * size)
            batches.append(Batch(*(array[mine] for array in rows)))
        return batches


def stack_rows(rows: Sequence[AnyBatch], kept: slice = slice(None)) -> AnyBatch:
    """Stack those rows that are ``kept`` into a batch, whose arrays are new.

    >>> row = np.array([7, 8, 2])
    >>> stack_rows([Batch(*[row] * 8), Batch(*[row] * 8)]).source.tolist()
    [[7, 8, 2], [7, 8, 2]]
    """
    return type(rows[0])(*(np.stack(arrays) for arrays in zip(*rows[kept], strict=True)))
