"""What is asked for each line, and what it becomes."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from flax_transformer.array_types import Int
from flax_transformer.data.sentence_pair import clean_text
from flax_transformer.data.text_tokenizer import TextTokenizer
from flax_transformer.decoding.hypotheses import Hypotheses
from flax_transformer.decoding.row_options import NO_TOKEN
from flax_transformer.evaluation.alignment import Alignment


class Request(NamedTuple):
    """A line to translate, and what its translation must have.

    Attributes:
        text: the line.
        prefix: how the translation begins.
        constraints: texts that the translation holds, in any order, as the tokenizer splits them.
    """

    text: str
    prefix: str = ""
    constraints: tuple[str, ...] = ()


class Translation(NamedTuple):
    """One output for one line.

    Attributes:
        text: the translation, without line breaks or tabs.
        score: its log-probability, natural, divided by the length penalty of the search.
        num_tokens: its length with the end token.
        truncated: whether it reached the length limit without the end token.
        alignment: see :mod:`flax_transformer.evaluation.alignment`; empty where it was not asked
            for.
    """

    text: str
    score: float
    num_tokens: int
    truncated: bool
    alignment: Alignment = ()


EMPTY_TRANSLATION = Translation("", 0.0, 0, False)
"""What a line without any text becomes."""

IMPOSSIBLE_TRANSLATION = Translation("", -np.inf, 0, False)
"""What a line becomes to which the processors of the strategy leave no output."""


def read_hypotheses(
    hypotheses: Hypotheses,
    tokenizer: TextTokenizer,
    alignments: Sequence[Sequence[Alignment]] | None = None,
) -> Iterator[list[Translation]]:
    """Yield the translations of each row, without the places that the search left empty."""
    for row, (tokens, scores, lengths) in enumerate(
        zip(hypotheses.tokens, hypotheses.scores, hypotheses.lengths, strict=True)
    ):
        found = [
            Translation(
                # Byte tokens can spell a line break, and a line must stay a line.
                text=clean_text(tokenizer.decode(ids[:length].tolist())),
                score=float(score),
                num_tokens=int(length),
                truncated=bool(ids[length - 1] != tokenizer.eos_id),
                alignment=() if alignments is None else alignments[row][place],
            )
            for place, (ids, score, length) in enumerate(zip(tokens, scores, lengths, strict=True))
            if score != -np.inf
        ]
        yield found or [IMPOSSIBLE_TRANSLATION]


def encode_prefixes(
    requests: Sequence[Request], tokenizer: TextTokenizer, *, num_rows: int
) -> Int[np.ndarray, "B P"] | None:
    """Return the tokens of the prefixes, padded with -1; None where there are none."""
    rows = [_encode(tokenizer, request.prefix) for request in requests]
    longest = max(map(len, rows), default=0)
    if not longest:
        return None
    prefixes = np.full((num_rows, _few_sizes(longest)), NO_TOKEN, np.int32)
    for index, row in enumerate(rows):
        prefixes[index, : len(row)] = row
    return prefixes


def encode_constraints(
    requests: Sequence[Request], tokenizer: TextTokenizer, *, num_rows: int
) -> Int[np.ndarray, "B C L"] | None:
    """Return the tokens of the constraints, padded with -1; None where there are none."""
    rows = [
        [_encode(tokenizer, text) for text in request.constraints if clean_text(text)]
        for request in requests
    ]
    most = max(map(len, rows), default=0)
    if not most:
        return None
    longest = max(len(phrase) for row in rows for phrase in row)
    shape = (num_rows, _few_sizes(most), _few_sizes(longest))
    constraints = np.full(shape, NO_TOKEN, np.int32)
    for index, row in enumerate(rows):
        for place, phrase in enumerate(row):
            constraints[index, place, : len(phrase)] = phrase
    return constraints


def _encode(tokenizer: TextTokenizer, text: str) -> list[int]:
    return tokenizer.encode(cleaned) if (cleaned := clean_text(text)) else []


def _few_sizes(size: int) -> int:
    """Round up to a power of two, so that few programs are compiled."""
    return 1 << (size - 1).bit_length()
