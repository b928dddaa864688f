"""Tokenizers of public models, read by the ``tokenizers`` library from their ``tokenizer.json``."""

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np
import tokenizers

from flax_transformer.data.sentencepiece_model import replace_surrogates
from flax_transformer.errors import InputError, one_line


@dataclasses.dataclass(frozen=True, kw_only=True)
class JsonTokenizer:
    """One tokenizer of the ``tokenizers`` library.

    It may normalise text: ``decode(encode(text))`` need not be ``text``. Text never becomes a
    special token.

    Attributes:
        model: the content of ``tokenizer.json``.
        vocab_size: tokens of the model that it serves, which may be more than it has.
        pad_id: id of the padding.
        bos_id: id of what a decoder reads first, or of what a text begins with.
        eos_id: id of the end token.
        mask_id: id that stands for a hidden token.
        prefix_ids: what every encoded text begins with, such as BART's ``<s>``.

    Raises:
        InputError: ``model`` is not such a file, or has more tokens than ``vocab_size``.
    """

    model: bytes
    vocab_size: int
    pad_id: int
    bos_id: int
    eos_id: int
    mask_id: int
    prefix_ids: tuple[int, ...] = ()
    subword_regularization: float = 0.0

    def __post_init__(self) -> None:
        size = max(self._tokenizer.get_vocab().values(), default=-1) + 1
        if size > self.vocab_size:
            raise InputError(
                f"tokenizer.json must have tokens of the model's {self.vocab_size} alone, got "
                f"{size}."
            )
        if self.subword_regularization:
            raise InputError("subword_regularization must be 0 for tokenizer.json.")

    def __getstate__(self) -> dict[str, object]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @functools.cached_property
    def _tokenizer(self) -> tokenizers.Tokenizer:
        try:
            tokenizer = tokenizers.Tokenizer.from_str(self.model.decode())
        except Exception as error:  # of no narrower type
            raise InputError(f"tokenizer.json must hold a tokenizer: {one_line(error)}.") from error
        tokenizer.no_padding()
        tokenizer.no_truncation()
        tokenizer.encode_special_tokens = True  # as text
        return tokenizer

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text`` behind the prefix, without start and end tokens."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return ``[encode(text) for text in texts]``, faster."""
        clean = [replace_surrogates(text) for text in texts]
        encodings = self._tokenizer.encode_batch(clean, add_special_tokens=False)
        return [[*self.prefix_ids, *encoding.ids] for encoding in encodings]

    def sample(self, text: str, rng: np.random.Generator) -> list[int]:
        """Return what :meth:`encode` does: these tokenizers have one segmentation of a text."""
        return self.encode(text)

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``, in which special tokens stand for nothing.

        Raises:
            InputError: an id is outside the vocabulary.
        """
        special = {self.pad_id, self.bos_id, self.eos_id}
        plain = [int(token_id) for token_id in ids if token_id not in special]
        if outside := [each for each in plain if not 0 <= each < self.vocab_size]:
            raise InputError(f"ids must be from 0 to {self.vocab_size - 1}, got {outside[0]}.")
        return str(self._tokenizer.decode(plain, skip_special_tokens=True))
