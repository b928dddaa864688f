"""Tokenizers of public models, read by the ``tokenizers`` library from their ``tokenizer.json``."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Sequence

import numpy as np
import tokenizers

from flax_transformer.data.sentencepiece_model import replace_surrogates
from flax_transformer.data.text_tokenizer import require_mask
from flax_transformer.errors import InputError, one_line

_PROBES = ("", "a", "\u2603")
"""Texts that a tokenizer of any kind must take: nothing, a letter, and what few have a token of."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class JsonTokenizer:
    """One tokenizer of the ``tokenizers`` library.

    It may normalise text: ``decode(encode(text))`` need not be ``text``. Text never becomes a
    special token, but for the unknown one.

    Attributes:
        model: the content of ``tokenizer.json``.
        vocab_size: tokens of the model that it serves, which may be more than it has.
        pad_id: id of the padding.
        bos_id: id of what a decoder reads first, or of what a text begins with.
        eos_id: id of the end token.
        mask_token: id that stands for a hidden token; None where there is none.
        prefix_ids: what every encoded text begins with, such as BART's ``<s>``.
        prompt_ids: what stands before a text that is continued, such as Llama's ``<s>``.

    Raises:
        InputError: ``model`` is not such a file, cannot work, or has text become more tokens than
            ``vocab_size``.
    """

    model: bytes
    vocab_size: int
    pad_id: int
    bos_id: int
    eos_id: int
    mask_token: int | None
    prefix_ids: tuple[int, ...] = ()
    prompt_ids: tuple[int, ...] = ()
    subword_regularization: float = 0.0

    def __post_init__(self) -> None:
        special = special_tokens(self._tokenizer).values()
        plain = set(self._tokenizer.get_vocab().values()) - set(special)
        size = max(plain, default=-1) + 1
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
        tokenizer = load_tokenizer_json(self.model)
        tokenizer.encode_special_tokens = True  # as text
        return tokenizer

    @functools.cached_property
    def _spelled(self) -> dict[int, int | None]:
        """Special tokens that a model may make of text, and what they become instead."""
        ids = special_tokens(self._tokenizer)
        unknown = getattr(self._tokenizer.model, "unk_token", None)
        unknown_id = next((ids[name] for name in (unknown, "<unk>") if name in ids), None)
        return {token_id: unknown_id for token_id in ids.values() if token_id != unknown_id}

    @property
    def mask_id(self) -> int:
        """Id that stands for a hidden token.

        Raises:
            InputError: there is none.
        """
        return require_mask(self.mask_token)

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text`` behind the prefix, without start and end tokens."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return ``[encode(text) for text in texts]``, faster.

        Raises:
            InputError: the tokenizer cannot take a text.
        """
        clean = [replace_surrogates(text) for text in texts]
        with _faults_named():
            encodings = self._tokenizer.encode_batch(clean, add_special_tokens=False)
        return [[*self.prefix_ids, *self._without_special(encoding.ids)] for encoding in encodings]

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
        with _faults_named():
            return str(self._tokenizer.decode(plain, skip_special_tokens=True))

    def _without_special(self, ids: list[int]) -> list[int]:
        """Replace the special tokens that a unigram model makes of text that spells them."""
        if self._spelled.keys().isdisjoint(ids):
            return ids
        replaced = [self._spelled.get(token_id, token_id) for token_id in ids]
        return [token_id for token_id in replaced if token_id is not None]


def load_tokenizer_json(content: bytes) -> tokenizers.Tokenizer:
    """Read a ``tokenizer.json``, without its padding and truncation, and try it.

    Raises:
        InputError: it is no such file, or its parts cannot work together.
    """
    with _faults_named():
        tokenizer = tokenizers.Tokenizer.from_str(content.decode())
        tokenizer.no_padding()
        tokenizer.no_truncation()
        for text in _PROBES:
            tokenizer.decode(tokenizer.encode(text).ids)
    return tokenizer


def special_tokens(tokenizer: tokenizers.Tokenizer) -> dict[str, int]:
    """Map the special tokens to their ids.

    >>> tokenizer = tokenizers.Tokenizer(tokenizers.models.WordPiece({"a": 0}))
    >>> tokenizer.add_special_tokens(["[PAD]"]) + tokenizer.add_tokens(["b"])
    2
    >>> special_tokens(tokenizer)
    {'[PAD]': 1}
    """
    added = tokenizer.get_added_tokens_decoder()
    return {token.content: token_id for token_id, token in added.items() if token.special}


@contextlib.contextmanager
def _faults_named() -> Iterator[None]:
    """Turn what the library raises, for which it has no type of its own, into an error of ours."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
        raise
    except BaseException as error:  # a panic of Rust is no Exception
        raise InputError(
            f"tokenizer.json must hold a tokenizer that works: {one_line(error)}."
        ) from error
