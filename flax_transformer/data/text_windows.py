"""From a window of texts to packed rows or to bucketed batches, as :mod:`.windows` has it of pairs.

What comes out is a pure function of the texts, their indices and the random generator.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np

from flax_transformer.array_types import Int
from flax_transformer.data.batch import LabelledBatch, TextBatch
from flax_transformer.data.bucketing import Bucket, cut_into_batches
from flax_transformer.data.masking import mask_tokens
from flax_transformer.data.packing import pack_best_fit
from flax_transformer.data.rows import cut_sequence, fill_side
from flax_transformer.data.text_pieces import TextPiece, TextPieces
from flax_transformer.data.text_tokenizer import TextTokenizer
from flax_transformer.data.texts import LabelledText


@dataclass(frozen=True, kw_only=True)
class Masking:
    """How tokens are hidden from a masked language model; see :mod:`.masking`.

    ``special_ids`` are never chosen.
    """

    rate: float
    mask_id: int
    vocab_size: int
    special_ids: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class PackedPieces:
    """Pack pieces of text into rows of ``row_length``; hide tokens if there is a ``masking``."""

    pieces: TextPieces = field(repr=False)
    row_length: int
    pad_id: int
    masking: Masking | None

    def __call__(self, piece_ids: Sequence[int], rng: np.random.Generator) -> list[TextBatch]:
        """Return the rows, in random order, each as a batch without its first axis."""
        pieces = [self.pieces[index] for index in piece_ids]
        lengths = np.array([len(piece.labels) for piece in pieces], dtype=np.int64)
        row_indices = pack_best_fit(lengths, lengths, self.row_length)
        num_rows = int(row_indices.max(initial=-1)) + 1
        row_indices = rng.permutation(num_rows)[row_indices]
        rows = _fill_pieces(
            pieces, piece_ids, row_indices, (num_rows, self.row_length), self.pad_id
        )
        if self.masking is not None:
            rows = _hide_tokens(rows, self.masking, rng)
        return [TextBatch(*arrays) for arrays in zip(*rows, strict=True)]


class _LabelledTokens(NamedTuple):
    tokens: list[int]
    label: int
    text_id: int


@dataclass(frozen=True, kw_only=True)
class BucketedTexts:
    """Sort a window of texts by length, cut it into batches and keep one part of their rows."""

    texts: Sequence[LabelledText] = field(repr=False)
    tokenizer: TextTokenizer
    max_length: int
    long_texts: Literal["drop", "cut"]
    buckets: Sequence[Bucket]
    part_index: int = 0
    part_count: int = 1

    def __call__(self, text_ids: Sequence[int], rng: np.random.Generator) -> list[LabelledBatch]:
        """Return the part ``part_index`` of ``part_count`` of each batch, in random order."""
        usable = self._tokenize(text_ids, rng)
        plan = cut_into_batches(
            np.array([len(text.tokens) for text in usable], dtype=np.int64), self.buckets
        )
        batches = []
        for index in rng.permutation(len(plan)).tolist():
            members, bucket = plan[index]
            # At random, so that no part gets all the long texts or all the empty rows.
            row_indices = rng.permutation(bucket.num_rows)[: len(members)]
            rows = fill_labelled_rows(
                [usable[member].tokens for member in members],
                [usable[member].label for member in members],
                [usable[member].text_id for member in members],
                row_indices,
                shape=bucket,
                pad_id=self.tokenizer.pad_id,
            )
            size = bucket.num_rows // self.part_count
            mine = slice(self.part_index * size, (self.part_index + 1) * size)
            batches.append(LabelledBatch(*(array[mine] for array in rows)))
        return batches

    def _tokenize(self, text_ids: Sequence[int], rng: np.random.Generator) -> list[_LabelledTokens]:
        texts = [self.texts[index] for index in text_ids]
        if self.tokenizer.subword_regularization > 0:
            encoded = [self.tokenizer.sample(text.text, rng) for text in texts]
        else:
            encoded = self.tokenizer.encode_batch([text.text for text in texts])
        bracketed = [bracket(ids, self.tokenizer, max_length=None) for ids in encoded]
        return [
            _LabelledTokens(cut_sequence(tokens, self.max_length), text.label, text_id)
            for tokens, text, text_id in zip(bracketed, texts, text_ids, strict=True)
            if len(tokens) <= self.max_length or self.long_texts == "cut"
        ]


def bracket(ids: Sequence[int], tokenizer: TextTokenizer, *, max_length: int | None) -> list[int]:
    """Return a text between the start and the end token; of a long text the end is cut off."""
    tokens = [tokenizer.bos_id, *ids, tokenizer.eos_id]
    return tokens if max_length is None else cut_sequence(tokens, max_length)


def fill_labelled_rows(
    sequences: Sequence[Sequence[int]],
    labels: Sequence[int],
    text_ids: Sequence[int],
    row_indices: Int[np.ndarray, " N"],
    *,
    shape: tuple[int, int],
    pad_id: int,
) -> LabelledBatch:
    """Write sequence ``n`` into row ``row_indices[n]``, which no other one has.

    >>> batch = fill_labelled_rows([[1, 7, 2]], [4], [9], np.array([1]), shape=(2, 4), pad_id=0)
    >>> batch.tokens.tolist(), batch.labels.tolist(), batch.pair_ids.tolist()
    ([[0, 0, 0, 0], [1, 7, 2, 0]], [-1, 4], [[-1, -1, -1, -1], [9, 9, 9, -1]])
    """
    order = np.argsort(row_indices)
    tokens, segment_ids, positions = fill_side(
        [sequences[index] for index in order], np.asarray(row_indices)[order], shape, pad_id
    )
    row_labels = np.full(shape[0], -1, np.int32)
    row_labels[row_indices] = labels
    row_ids = np.full((shape[0], 1), -1, np.int32)
    row_ids[row_indices, 0] = text_ids
    pair_ids = np.where(segment_ids > 0, row_ids, np.int32(-1))
    return LabelledBatch(tokens, segment_ids, positions, row_labels, pair_ids)


def _fill_pieces(
    pieces: Sequence[TextPiece],
    piece_ids: Sequence[int],
    row_indices: Int[np.ndarray, " N"],
    shape: tuple[int, int],
    pad_id: int,
) -> TextBatch:
    order = np.argsort(row_indices, kind="stable")
    rows = row_indices[order]
    tokens, segment_ids, positions = fill_side(
        [pieces[index].tokens.tolist() for index in order], rows, shape, pad_id
    )
    labels, _, _ = fill_side(
        [pieces[index].labels.tolist() for index in order], rows, shape, pad_id
    )
    pair_ids = np.full(shape, -1, np.int32)
    pair_ids[segment_ids > 0] = np.repeat(
        np.array([piece_ids[index] for index in order], np.int32),
        np.array([len(pieces[index].labels) for index in order], np.int64),
    )
    is_predicted = (segment_ids > 0).astype(np.int32)
    return TextBatch(tokens, segment_ids, positions, labels, is_predicted, pair_ids)


def _hide_tokens(rows: TextBatch, masking: Masking, rng: np.random.Generator) -> TextBatch:
    can_be_hidden = (rows.segment_ids > 0) & ~np.isin(rows.labels, masking.special_ids)
    hidden = mask_tokens(
        rows.tokens,
        can_be_hidden,
        rng,
        rate=masking.rate,
        mask_id=masking.mask_id,
        vocab_size=masking.vocab_size,
    )
    return rows._replace(tokens=hidden.tokens, is_predicted=hidden.is_predicted.astype(np.int32))
