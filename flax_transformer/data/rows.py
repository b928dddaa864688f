"""Tokenised sentence pairs, and the rows of a batch filled with them."""

from collections.abc import Sequence
from itertools import chain
from typing import Literal, NamedTuple

import numpy as np

from flax_transformer.array_types import Int
from flax_transformer.data.batch import Batch
from flax_transformer.data.sentence_pair import SentencePair
from flax_transformer.data.tokenizer import TranslationTokenizer


class TokenizedPair(NamedTuple):
    """Token ids of a sentence pair; both sides end with the end token.

    ``pair_id`` is the index of the pair in its corpus.
    """

    source: list[int]
    labels: list[int]
    pair_id: int


class SpecialTokens(NamedTuple):
    """The ids that :func:`fill_rows` writes itself: target start, source and target padding."""

    bos_id: int
    source_pad_id: int
    target_pad_id: int


def special_tokens(tokenizer: TranslationTokenizer) -> SpecialTokens:
    """Return the ids of the special tokens of ``tokenizer``."""
    return SpecialTokens(tokenizer.target.bos_id, tokenizer.source.pad_id, tokenizer.target.pad_id)


def tokenize_pairs(
    pairs: Sequence[SentencePair],
    tokenizer: TranslationTokenizer,
    rng: np.random.Generator | None = None,
    *,
    pair_ids: Sequence[int] | None = None,
) -> list[TokenizedPair]:
    """Tokenise ``pairs`` and append the end tokens.

    With ``rng`` the segmentations are random (subword regularisation), otherwise the best. Without
    ``pair_ids`` the pairs are the corpus, and numbered from 0.
    """
    source, target = tokenizer.source, tokenizer.target
    if rng is None:
        source_ids = source.encode_batch([pair.source for pair in pairs])
        target_ids = target.encode_batch([pair.target for pair in pairs])
    else:
        source_ids = [source.sample(pair.source, rng) for pair in pairs]
        target_ids = [target.sample(pair.target, rng) for pair in pairs]
    source_end, target_end = source.eos_id, target.eos_id  # each look-up asks the model
    return [
        TokenizedPair([*source_side, source_end], [*target_side, target_end], pair_id)
        for source_side, target_side, pair_id in zip(
            source_ids, target_ids, range(len(pairs)) if pair_ids is None else pair_ids, strict=True
        )
    ]


def is_empty(pair: SentencePair) -> bool:
    """Whether a side of ``pair`` is empty or all spaces, so that nothing can be learnt from it.

    >>> is_empty(SentencePair("Yes.", " ")), is_empty(SentencePair("Yes.", "Sim."))
    (True, False)
    """
    return not (pair.source.strip() and pair.target.strip())


def longer_side(pair: TokenizedPair) -> int:
    """Return the number of tokens of the longer side, end token included.

    >>> longer_side(TokenizedPair([7, 2], [8, 9, 2], pair_id=0))
    3
    """
    return max(len(pair.source), len(pair.labels))


def limit_length(
    pairs: Sequence[TokenizedPair], max_length: int, policy: Literal["drop", "cut"]
) -> list[TokenizedPair]:
    """Drop the pairs with a side of more than ``max_length`` tokens, or cut that side.

    A side that is cut keeps its end token.

    >>> pairs = [TokenizedPair([7, 2], [3, 4, 5, 2], 0), TokenizedPair([7, 2], [8, 2], 1)]
    >>> limit_length(pairs, 3, "drop")
    [TokenizedPair(source=[7, 2], labels=[8, 2], pair_id=1)]
    >>> limit_length(pairs, 3, "cut")[0]
    TokenizedPair(source=[7, 2], labels=[3, 4, 2], pair_id=0)
    """
    if policy == "drop":
        return [pair for pair in pairs if longer_side(pair) <= max_length]
    return [
        TokenizedPair(
            cut_sequence(pair.source, max_length),
            cut_sequence(pair.labels, max_length),
            pair.pair_id,
        )
        for pair in pairs
    ]


def fill_rows(
    pairs: Sequence[TokenizedPair],
    row_indices: Int[np.ndarray, " N"],
    *,
    num_rows: int,
    row_length: int,
    special: SpecialTokens,
) -> Batch:
    """Write pair ``n`` into row ``row_indices[n]``, behind the pairs before it in that row.

    Rows that no pair names are all padding. The arrays are new and share no memory.

    >>> pairs = [TokenizedPair([7, 2], [8, 2], 40), TokenizedPair([5, 6, 2], [9, 2], 30)]
    >>> batch = fill_rows(pairs, np.array([0, 0]), num_rows=1, row_length=6,
    ...                   special=SpecialTokens(bos_id=1, source_pad_id=0, target_pad_id=0))
    >>> batch.source.tolist(), batch.source_segment_ids.tolist()
    ([[7, 2, 5, 6, 2, 0]], [[1, 1, 2, 2, 2, 0]])
    >>> batch.target.tolist(), batch.labels.tolist(), batch.target_positions.tolist()
    ([[1, 8, 1, 9, 0, 0]], [[8, 2, 9, 2, 0, 0]], [[0, 1, 0, 1, 0, 0]])
    >>> batch.pair_ids.tolist()
    [[40, 40, 30, 30, -1, -1]]
    """
    order = np.argsort(row_indices, kind="stable")
    rows = np.asarray(row_indices)[order]
    shape = (num_rows, row_length)
    source, source_segment_ids, source_positions = fill_side(
        [pairs[index].source for index in order], rows, shape, special.source_pad_id
    )
    labels, target_segment_ids, target_positions = fill_side(
        [pairs[index].labels for index in order], rows, shape, special.target_pad_id
    )
    target = np.full_like(labels, special.target_pad_id)
    target[:, 1:] = labels[:, :-1]
    target[target_positions == 0] = special.bos_id
    target[target_segment_ids == 0] = special.target_pad_id
    pair_ids = np.full(shape, -1, dtype=np.int32)
    # Row by row the pairs follow each other in this order, without gaps.
    pair_ids[target_segment_ids > 0] = np.repeat(
        np.array([pairs[index].pair_id for index in order], dtype=np.int32),
        np.array([len(pairs[index].labels) for index in order], dtype=np.int64),
    )
    return Batch(
        source=source,
        source_segment_ids=source_segment_ids,
        source_positions=source_positions,
        target=target,
        labels=labels,
        target_segment_ids=target_segment_ids,
        target_positions=target_positions,
        pair_ids=pair_ids,
    )


def cut_sequence(ids: list[int], max_length: int) -> list[int]:
    """Return at most ``max_length`` of ``ids``, the last one of them always.

    >>> cut_sequence([1, 8, 9, 2], 3)
    [1, 8, 2]
    """
    return ids if len(ids) <= max_length else [*ids[: max_length - 1], ids[-1]]


def fill_side(
    sequences: Sequence[Sequence[int]],
    rows: Int[np.ndarray, " N"],
    shape: tuple[int, int],
    pad_id: int,
) -> tuple[Int[np.ndarray, "B T"], Int[np.ndarray, "B T"], Int[np.ndarray, "B T"]]:
    """Write sequence ``n`` into row ``rows[n]``, behind those before it; ``rows`` must not fall.

    Returns:
        Tokens, segment ids (from 1 in each row, 0 on padding) and positions (from 0 in each
        sequence), of ``shape``.
    """
    tokens = np.full(shape, pad_id, dtype=np.int32)
    segment_ids = np.zeros(shape, dtype=np.int32)
    positions = np.zeros(shape, dtype=np.int32)
    lengths = np.array([len(sequence) for sequence in sequences], dtype=np.int64)
    starts = np.cumsum(lengths) - lengths
    numbers = np.arange(len(sequences))
    # What the first sequence of each row has, carried on to the others of the row.
    opens_row = np.diff(rows, prepend=-1) != 0
    columns = starts - np.maximum.accumulate(np.where(opens_row, starts, 0))
    segments = numbers - np.maximum.accumulate(np.where(opens_row, numbers, 0)) + 1
    assert np.all(columns + lengths <= shape[1]), "a row is over-full"

    offsets = np.arange(lengths.sum()) - np.repeat(starts, lengths)
    cells = np.repeat(rows * shape[1] + columns, lengths) + offsets
    tokens.flat[cells] = np.fromiter(chain.from_iterable(sequences), np.int32, len(cells))
    segment_ids.flat[cells] = np.repeat(segments, lengths)
    positions.flat[cells] = offsets
    return tokens, segment_ids, positions
