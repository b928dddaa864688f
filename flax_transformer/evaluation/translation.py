"""What is asked for each line, and what it becomes."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from flax_transformer.data.sentence_pair import clean_text
from flax_transformer.data.text_tokenizer import TextTokenizer
from flax_transformer.decoding.hypotheses import Hypotheses
from flax_transformer.evaluation.alignment import Alignment


class Request(NamedTuple):
    """A line to translate or to continue, and what the output must have.

    Attributes:
        text: the line, or the prompt.
        prefix: how the output begins.
        constraints: texts that the output holds, in any order, as the tokenizer splits them behind
            a space.
    """

    text: str
    prefix: str = ""
    constraints: tuple[str, ...] = ()


class Translation(NamedTuple):
    """One output for one line.

    Attributes:
        text: the translation, without line breaks or tabs.
        score: its log-probability, natural; that of a beam search is divided by its length penalty.
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
