"""The tokens of what outputs must begin with and hold."""

from collections.abc import Sequence

import numpy as np

from flax_transformer.array_types import Int
from flax_transformer.data.sentence_pair import clean_text
from flax_transformer.data.text_tokenizer import TextTokenizer
from flax_transformer.decoding.row_options import NO_TOKEN
from flax_transformer.errors import InputError
from flax_transformer.evaluation.sources import check_texts

_WORD = "a"
"""Stands before a text to see whether its tokens begin another word."""

_UNKNOWN = ("\u2047", "<unk>", "[UNK]")
"""What tokenizers write for the unknown token."""


def encode_text(tokenizer: TextTokenizer, text: str) -> list[int]:
    """Return the tokens of a cleaned text, at the beginning of an output.

    Raises:
        InputError: the vocabulary has no tokens for it.
    """
    cleaned = clean_text(text)
    check_known(tokenizer, cleaned)
    return tokenizer.encode(cleaned) if cleaned else []


def encode_word(tokenizer: TextTokenizer, text: str) -> list[int]:
    """Return the tokens of a cleaned text that stands behind a space.

    Raises:
        InputError: the vocabulary has no tokens for it.
    """
    tokens = encode_text(tokenizer, text)
    before = tokenizer.encode(_WORD)
    is_apart = tokenizer.decode([*before, *tokens])[len(_WORD) :].startswith(" ")
    return tokens if is_apart else tokenizer.encode(f" {clean_text(text)}")


def check_known(tokenizer: TextTokenizer, text: str) -> None:
    """Raise InputError if a character of ``text`` becomes the unknown token.

    To force or to forbid that token would force or forbid something else.
    """
    for character in sorted(set(text)):
        if character.isspace() or not (ids := tokenizer.encode(character)):
            continue
        read = tokenizer.decode(ids).strip()
        if not read or any(name in read and name != character for name in _UNKNOWN):
            raise InputError(
                f"a text that outputs must or must not hold must be one of the tokenizer's "
                f"characters, got {character!r} in {text!r}."
            )


def pad_prefixes(
    prefixes: Sequence[Sequence[int]], *, num_rows: int
) -> Int[np.ndarray, "B P"] | None:
    """Return tokens padded with -1, the first row for those that are missing; None for none.

    >>> pad_prefixes([[5, 6, 7], []], num_rows=3)
    array([[ 5,  6,  7, -1],
           [-1, -1, -1, -1],
           [ 5,  6,  7, -1]], dtype=int32)
    """
    longest = max(map(len, prefixes), default=0)
    if not longest:
        return None
    padded = np.full((num_rows, _few_sizes(longest)), NO_TOKEN, np.int32)
    for index, row in enumerate(prefixes):
        padded[index, : len(row)] = row
    padded[len(prefixes) :] = padded[0]
    return padded


def encode_constraints(
    constraints: Sequence[Sequence[str]], tokenizer: TextTokenizer, *, num_rows: int
) -> Int[np.ndarray, "B C L"] | None:
    """Return the tokens of the texts of each row, padded with -1; None where there are none.

    Rows that are missing are as the first.

    Raises:
        InputError: the vocabulary has no tokens for a text, or a row has a text for its texts.
    """
    for texts in constraints:
        check_texts(texts, "constraints")
    rows = [
        [encode_word(tokenizer, text) for text in texts if clean_text(text)]
        for texts in constraints
    ]
    most = max(map(len, rows), default=0)
    if not most:
        return None
    longest = max(len(phrase) for row in rows for phrase in row)
    shape = (num_rows, _few_sizes(most), _few_sizes(longest))
    padded = np.full(shape, NO_TOKEN, np.int32)
    for index, row in enumerate(rows):
        for place, phrase in enumerate(row):
            padded[index, place, : len(phrase)] = phrase
    padded[len(rows) :] = padded[0]
    return padded


def _few_sizes(size: int) -> int:
    """Round up to a power of two, so that few programs are compiled."""
    return 1 << (size - 1).bit_length()
