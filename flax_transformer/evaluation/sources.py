"""Source lines as the tokens that the model reads."""

import logging
from collections.abc import Sequence

from flax_transformer.data.sentence_pair import clean_text
from flax_transformer.data.text_tokenizer import TextTokenizer
from flax_transformer.errors import InputError

_logger = logging.getLogger(__name__)


def check_texts(texts: object, name: str) -> None:
    """Refuse one text where several are meant: its characters would be taken for texts.

    Raises:
        InputError: ``texts`` is a string; the message calls it ``name``.
    """
    if isinstance(texts, str):
        raise InputError(f"{name} must be several texts, got one: {texts!r}. Put it into a list.")


def encode_sources(
    tokenizer: TextTokenizer, lines: Sequence[str], *, max_length: int, first_line: int = 1
) -> list[list[int]]:
    """Return the tokens of each line behind one another, with the end token.

    A line is cleaned as training text is. A line of more than ``max_length`` tokens is cut, its end
    token kept, and a warning names it; lines are counted from ``first_line``.
    """
    sources = []
    encoded = tokenizer.encode_batch([clean_text(line) for line in lines])
    for number, tokens in enumerate(encoded, start=first_line):
        if len(tokens) >= max_length:
            _logger.warning(
                "line %d has %d tokens, more than the %d that fit: its end is cut off",
                number,
                len(tokens) + 1,
                max_length,
            )
            del tokens[max_length - 1 :]
        sources.append([*tokens, tokenizer.eos_id])
    return sources
