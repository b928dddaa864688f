"""The token ids of a corpus, made from its text each time they are asked for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from flax_transformer.data.corpus import read_pairs
from flax_transformer.data.rows import TokenizedPair, is_empty, tokenize_pairs
from flax_transformer.data.sentence_pair import SentencePair
from flax_transformer.data.tokenizer import TranslationTokenizer
from flax_transformer.errors import InputError, one_line

ReadTokens = Callable[[Sequence[int], np.random.Generator | None], list[TokenizedPair]]
"""From indices of pairs to the tokens of those that have text on both sides, in the same order.

The generator draws the segmentations, if they are random; without it they are the best ones.
"""


@dataclass(frozen=True, kw_only=True)
class TextTokens:
    """Read and tokenise the pairs that are asked for."""

    pairs: Sequence[SentencePair] = field(repr=False)
    tokenizer: TranslationTokenizer

    @property
    def is_random(self) -> bool:
        """Whether text is segmented anew each time."""
        return self.tokenizer.source.subword_regularization > 0

    def __call__(
        self, pair_ids: Sequence[int], rng: np.random.Generator | None
    ) -> list[TokenizedPair]:
        """Return the tokens of those pairs that are not empty; ``rng`` draws their segmentations.

        Raises:
            InputError: a pair cannot be read or tokenised; the message names its index.
        """
        read = read_pairs(self.pairs, pair_ids)
        filled = [number for number, pair in enumerate(read) if not is_empty(pair)]
        return self._tokenize(
            [read[number] for number in filled],
            [pair_ids[number] for number in filled],
            rng if self.is_random else None,
        )

    def _tokenize(
        self,
        pairs: Sequence[SentencePair],
        pair_ids: Sequence[int],
        rng: np.random.Generator | None,
    ) -> list[TokenizedPair]:
        try:
            return tokenize_pairs(pairs, self.tokenizer, rng, pair_ids=pair_ids)
        except Exception as error:  # whatever the tokenizer raises
            if len(pairs) == 1:
                raise InputError(
                    "pairs must be text that the tokenizer can segment, got "
                    f"{type(error).__name__} at index {pair_ids[0]}: {one_line(error)}"
                ) from error
            for pair, pair_id in zip(pairs, pair_ids, strict=True):
                self._tokenize([pair], [pair_id], rng)  # raises at the pair that is to blame
            raise
