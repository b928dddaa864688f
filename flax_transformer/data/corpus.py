"""Read the pairs of a corpus by their index, so that a damaged one is named by it."""

from collections.abc import Iterable, Sequence

import numpy as np

from flax_transformer.data.sentence_pair import SentencePair
from flax_transformer.errors import InputError, one_line


def read_pairs(pairs: Sequence[SentencePair], indices: Iterable[int]) -> list[SentencePair]:
    """Return ``pairs[index]`` for each of ``indices``.

    Raises:
        InputError: a pair cannot be read, or is no pair of texts; the message names its index.

    >>> read_pairs([SentencePair("a", "b"), SentencePair("c", "d")], [1])
    [SentencePair(source='c', target='d')]
    """
    return [_read_pair(pairs, index) for index in indices]


def spread_evenly(pairs: Sequence[SentencePair], count: int) -> list[SentencePair]:
    """Return ``count`` elements of ``pairs`` (all, if there are fewer) at even distances.

    >>> corpus = [SentencePair(str(number), "") for number in range(100)]
    >>> [pair.source for pair in spread_evenly(corpus, 4)]
    ['0', '33', '66', '99']
    """
    return read_pairs(pairs, spread_indices(len(pairs), count))


def spread_indices(num_pairs: int, count: int) -> list[int]:
    """Return ``count`` of the indices below ``num_pairs`` (all, if there are fewer), evenly apart.

    >>> spread_indices(100, 4)
    [0, 33, 66, 99]
    """
    return np.linspace(0, num_pairs - 1, min(num_pairs, count)).astype(int).tolist()


def _read_pair(pairs: Sequence[SentencePair], index: int) -> SentencePair:
    try:
        pair = pairs[index]
    except InputError:  # it names the index, and the split and the file too
        raise
    except Exception as error:  # whatever a source raises
        raise InputError(
            f"pairs must be readable, got {type(error).__name__} at index {index}: "
            f"{one_line(error)}"
        ) from error
    if isinstance(pair, SentencePair) and type(pair.source) is type(pair.target) is str:
        return pair
    raise InputError(f"pairs must be pairs of texts, got {pair!r:.80} at index {index}.")
