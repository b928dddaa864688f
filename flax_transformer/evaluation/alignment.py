"""Alignments of translations to their sources, word by word."""

from collections.abc import Sequence

import numpy as np

from flax_transformer.array_types import Float
from flax_transformer.data.text_tokenizer import TextTokenizer

Alignment = tuple[tuple[int, int], ...]
"""Pairs of a word of the source and one of the translation, both counted from 0, sorted."""


def align_words(
    attention: Float[np.ndarray, "T S"],
    source_words: Sequence[int],
    target_words: Sequence[int],
) -> Alignment:
    """Pair the word of each target token with that of the source token it attends to most.

    Args:
        attention: of each target token to each source token; what lies beyond the words is padding
            or an end token, and is passed over.
        source_words: number of the word that each source token belongs to.
        target_words: the same of the target tokens.

    >>> align_words(np.array([[0.1, 0.6, 0.3], [0.7, 0.1, 0.2]]), [0, 1], [0, 1])
    ((0, 1), (1, 0))
    """
    if not source_words:
        return ()
    best = attention[: len(target_words), : len(source_words)].argmax(axis=1)
    pairs = zip((source_words[place] for place in best), target_words, strict=True)
    return tuple(sorted(set(pairs)))


def words_of_tokens(ids: Sequence[int], tokenizer: TextTokenizer) -> list[int]:
    """Return the number of the word, between spaces, that each token belongs to.

    A token that only ends a word or only begins one, with nothing but a space, counts to the word
    before it.
    """
    return [
        max(0, len(tokenizer.decode(ids[: place + 1]).strip(" ").split(" ")) - 1)
        for place in range(len(ids))
    ]


def format_alignment(alignment: Alignment) -> str:
    """Return the pairs in Pharaoh's form.

    >>> format_alignment(((0, 0), (1, 2)))
    '0-0 1-2'
    """
    return " ".join(f"{source}-{target}" for source, target in alignment)
