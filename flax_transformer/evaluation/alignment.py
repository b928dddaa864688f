"""Alignments of translations to their sources, word by word."""

from collections.abc import Sequence

import numpy as np

from flax_transformer.array_types import Float
from flax_transformer.data.text_tokenizer import TextTokenizer

Alignment = tuple[tuple[int, int], ...]
"""Pairs of a word of the source and one of the translation, both counted from 0, sorted."""


def align_words(
    attention: Float[np.ndarray, "T S"],
    source_words: Sequence[int | None],
    target_words: Sequence[int | None],
) -> Alignment:
    """Pair the word of each target token with that of the source token it attends to most.

    Args:
        attention: of each target token to each source token; what lies beyond the words is padding
            or an end token, and is passed over.
        source_words: number of the word that each source token belongs to; what belongs to none is
            passed over, too.
        target_words: the same of the target tokens.

    >>> align_words(np.array([[0.1, 0.6, 0.3], [0.7, 0.1, 0.2]]), [0, 1], [0, 1])
    ((0, 1), (1, 0))
    """
    places = [place for place, word in enumerate(source_words) if word is not None]
    if not places:
        return ()
    best = attention[: len(target_words), places].argmax(axis=1)
    attended = [source_words[places[index]] for index in best]
    pairs = {
        (source, target)
        for source, target in zip(attended, target_words, strict=True)
        if source is not None and target is not None
    }
    return tuple(sorted(pairs))


def words_of_tokens(ids: Sequence[int], tokenizer: TextTokenizer) -> list[int | None]:
    """Return the number of the word, between spaces, that each token belongs to.

    A token without text of its own, a special one or nothing but a space, belongs to none.
    """
    return [
        len(tokenizer.decode(ids[: place + 1]).strip(" ").split(" ")) - 1
        if tokenizer.decode([token]).strip(" ")
        else None
        for place, token in enumerate(ids)
    ]


def format_alignment(alignment: Alignment) -> str:
    """Return the pairs in Pharaoh's form.

    >>> format_alignment(((0, 0), (1, 2)))
    '0-0 1-2'
    """
    return " ".join(f"{source}-{target}" for source, target in alignment)
