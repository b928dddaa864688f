"""One SentencePiece model: text to token ids and back without loss."""

import functools
import re
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
import sentencepiece

from flax_transformer.errors import InputError

_NUM_CANDIDATES = 64
_LONGEST_SAMPLED_WORD = 256
_SPACE_SYMBOL = "\u2581"
_SURROGATES = re.compile("[\ud800-\udfff]")


class Tokenizer:
    """One SentencePiece model.

    ``decode(encode(text)) == text`` for every text without lone surrogates, which become U+FFFD:
    nothing is normalised, and characters without a token are spelled in bytes. Text never becomes
    a special token, not even the text ``</s>``. Pickles by its bytes; equal models are equal.

    Args:
        model: a serialised SentencePiece model with a padding, start and end token.
        subword_regularization: the exponent alpha of :meth:`sample`.

    Raises:
        InputError: ``model`` is not such a model.
    """

    def __init__(self, model: bytes, subword_regularization: float = 0.0) -> None:
        self.model = model
        self.subword_regularization = float(subword_regularization)
        # SentencePiece takes no bytes at all for "no model yet".
        if not model:
            raise InputError("model must be a SentencePiece model, got an empty file.")
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError:
            raise InputError("model must be a SentencePiece model, got other bytes.") from None
        for name, token_id in (("pad", self.pad_id), ("bos", self.bos_id), ("eos", self.eos_id)):
            if token_id < 0:
                raise InputError(f"model must have a {name} token, got a model without one.")
        # A bound method cannot be cached by a decorator without keeping every tokenizer alive.
        self._cached_candidates = functools.lru_cache(maxsize=1 << 13)(self._candidates)

    def __reduce__(self) -> tuple[type["Tokenizer"], tuple[bytes, float]]:
        return Tokenizer, (self.model, self.subword_regularization)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Tokenizer):
            return NotImplemented
        return self.__reduce__() == other.__reduce__()

    def __hash__(self) -> int:
        return hash(self.__reduce__())

    @property
    def vocab_size(self) -> int:
        """Number of tokens, special and byte tokens included."""
        return self._processor.get_piece_size()

    @property
    def pad_id(self) -> int:
        """Id of the padding."""
        return self._processor.pad_id()

    @property
    def bos_id(self) -> int:
        """Id of the start token."""
        return self._processor.bos_id()

    @property
    def eos_id(self) -> int:
        """Id of the end token."""
        return self._processor.eos_id()

    @property
    def unk_id(self) -> int:
        """Id of the unknown token, which no text becomes."""
        return self._processor.unk_id()

    @property
    def mask_id(self) -> int:
        """Id that stands for a hidden token: the unknown token's, which no text becomes."""
        return self.unk_id

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """What stands before a text that is continued: the start token."""
        return (self.bos_id,)

    def encode(self, text: str) -> list[int]:
        """Return the ids of the best segmentation of ``text``, without start and end tokens."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return ``[encode(text) for text in texts]``, faster."""
        clean = [replace_surrogates(text) for text in texts]
        ids: list[list[int]] = self._processor.encode(clean, num_threads=1)
        for index, text in enumerate(clean):
            if _SPACE_SYMBOL in text:
                ids[index] = self._encode_with_space_symbol(text)
        return ids

    def sample(self, text: str, rng: np.random.Generator) -> list[int]:
        """Return the ids of a random segmentation of ``text``, drawn with ``rng``.

        Tokens do not cross spaces, so the probability of a segmentation is the product of those of
        its words, and each word is drawn by itself: from its 64 likeliest segmentations, with
        probability proportional to P^alpha. The result is determined by ``text`` and the state of
        ``rng`` (unlike SentencePiece's own sampling, which has a hidden global generator).

        Raises:
            InputError: the model is not a unigram model.
        """
        text = replace_surrogates(text)
        if not text or _SPACE_SYMBOL in text:
            return self.encode(text)
        words = text.split(" ")
        ids: list[int] = []
        for word, draw in zip(words, rng.random(len(words)).tolist(), strict=True):
            segmentations, cumulative = self._cached_candidates(word)
            ids += segmentations[min(bisect_right(cumulative, draw), len(segmentations) - 1)]
        return ids

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``, in which special tokens stand for nothing.

        Raises:
            InputError: an id is outside the vocabulary.
        """
        special = {self.pad_id, self.bos_id, self.eos_id, self.unk_id}
        plain = [int(token_id) for token_id in ids if token_id not in special]
        outside = [token_id for token_id in plain if not 0 <= token_id < self.vocab_size]
        if outside:
            raise InputError(
                f"ids must be from 0 to {self.vocab_size - 1}, got {outside[0]}. "
                "The model and the tokenizer must have the same vocabulary."
            )
        return str(self._processor.decode(plain))

    def _candidates(self, word: str) -> tuple[list[list[int]], list[float]]:
        """Segmentations of ``word`` and the cumulative probabilities to draw them with."""
        if not word:  # the space before an empty word is half of what a single space becomes
            both = self.encode(" ")
            return [both[: len(both) // 2]], [1.0]
        if len(word) > _LONGEST_SAMPLED_WORD:  # the n-best search is slow on very long words
            return [self.encode(word)], [1.0]
        try:
            segmentations = self._processor.nbest_encode(word, nbest_size=_NUM_CANDIDATES)
        except RuntimeError:
            raise InputError("subword_regularization must be 0, got a 'bpe' tokenizer.") from None
        score = self._processor.get_score
        log_weights = np.array([sum(map(score, ids)) for ids in segmentations], dtype=np.float64)
        log_weights *= self.subword_regularization
        weights = np.exp(log_weights - log_weights.max())
        return segmentations, np.cumsum(weights / weights.sum()).tolist()

    def _encode_with_space_symbol(self, text: str) -> list[int]:
        """Encode text that holds U+2581, which SentencePiece itself would take for a space.

        The symbol is spelled in bytes: a character that has no token and is not in the text takes
        its place, and the bytes of that character are replaced afterwards.
        """
        substitute = next(
            character
            for character in map(chr, range(0x10FFFF, 0xF0000, -1))
            if character not in text and self._processor.piece_to_id(character) == self.unk_id
        )
        old, new = self._byte_ids(substitute), self._byte_ids(_SPACE_SYMBOL)
        ids: list[int] = self._processor.encode(text.replace(_SPACE_SYMBOL, substitute))
        result: list[int] = []
        for token_id in ids:
            result.append(token_id)
            if result[-len(old) :] == old:
                result[-len(old) :] = new
        return result

    def _byte_ids(self, character: str) -> list[int]:
        pieces = [f"<0x{byte:02X}>" for byte in character.encode()]
        return [self._processor.piece_to_id(piece) for piece in pieces]


def replace_surrogates(text: str) -> str:
    r"""Replace lone surrogates, which UTF-8 cannot express, by U+FFFD.

    >>> replace_surrogates("a\ud800b") == "a\ufffdb"
    True
    """
    return _SURROGATES.sub("\ufffd", text)
