"""What every tokenizer of one language can do."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from flax_transformer.errors import InputError


class TextTokenizer(Protocol):
    """Text to token ids and back; one object may serve both languages.

    Text never becomes a special token, not even the text ``</s>``. A tokenizer pickles.
    """

    @property
    def subword_regularization(self) -> float:
        """The exponent alpha of :meth:`sample`; 0 for one segmentation of each text."""

    @property
    def model(self) -> bytes:
        """What makes two tokenizers the same."""

    @property
    def vocab_size(self) -> int:
        """Number of tokens, special ones included."""

    @property
    def pad_id(self) -> int:
        """Id of the padding."""

    @property
    def bos_id(self) -> int:
        """Id of what a decoder reads first, or of what a text begins with."""

    @property
    def eos_id(self) -> int:
        """Id of the end token."""

    @property
    def mask_id(self) -> int:
        """Id that stands for a hidden token; an :class:`InputError` where there is none."""

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """What stands before a text that is continued."""

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``, without start and end tokens."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return ``[encode(text) for text in texts]``, faster."""

    def sample(self, text: str, rng: np.random.Generator) -> list[int]:
        """Return the ids of a random segmentation of ``text``, drawn with ``rng``."""

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of ``ids``, in which special tokens stand for nothing."""


def require_mask(mask_token: int | None) -> int:
    """Return the token that stands for a hidden one.

    Raises:
        InputError: there is none.
    """
    if mask_token is None:
        raise InputError(
            "the tokenizer must have a mask token for masked language modelling, got none."
        )
    return mask_token
