"""The tokenizers that are trained here: how they are trained, saved and loaded."""

import hashlib
import io
import json
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self, TypeVar

import numpy as np
import sentencepiece

from flax_transformer.data.sentence_pair import SentencePair
from flax_transformer.data.sentencepiece_model import Tokenizer, replace_surrogates
from flax_transformer.data.text_tokenizer import TextTokenizer
from flax_transformer.errors import InputError
from flax_transformer.whole_file import write_file

# SentencePiece's result depends on the number of threads (sums are rounded in another order), so
# it is fixed whatever the machine.
_TRAINING_THREADS = 4
# SentencePiece's own limit of the bytes of a text.
_SHORT_TEXT = 4192
DESCRIPTION_FILE = "tokenizer.json"

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True)
class TokenizerConfig:
    """What :func:`train_tokenizer` makes.

    ``vocab_size`` counts the four special tokens and the 256 byte tokens. ``shared`` trains one
    model on both languages. ``sample_size`` bounds the pairs, documents or texts it is trained on.
    ``character_coverage`` is the share of the characters that get a token; the others are spelled
    in bytes. ``subword_regularization`` is the exponent alpha of Kudo (2018, arXiv 1804.10959):
    training text is segmented anew each time it is read, with probability proportional to
    P(segmentation)^alpha; 0 turns it off.
    """

    vocab_size: int = 8000
    algorithm: Literal["unigram", "bpe"] = "unigram"
    shared: bool = True
    sample_size: int = 1_000_000
    character_coverage: float = 0.9995
    subword_regularization: float = 0.0

    def __post_init__(self) -> None:
        if self.algorithm not in ("unigram", "bpe"):
            raise InputError(f"algorithm must be 'unigram' or 'bpe', got {self.algorithm!r}.")
        for name in ("vocab_size", "sample_size"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if not 0.0 < self.character_coverage <= 1.0:
            raise InputError(
                f"character_coverage must be above 0 and at most 1, got {self.character_coverage}."
            )
        if not 0.0 <= self.subword_regularization < math.inf:
            raise InputError(
                "subword_regularization must be a finite number of at least 0, "
                f"got {self.subword_regularization}."
            )
        if self.subword_regularization and self.algorithm != "unigram":
            raise InputError(
                "subword_regularization must be 0 with algorithm 'bpe', got "
                f"{self.subword_regularization}. Only the unigram model gives probabilities."
            )


@dataclass(frozen=True)
class TranslationTokenizer:
    """The tokenizers of the two languages: the same object when the vocabulary is shared."""

    source: TextTokenizer
    target: TextTokenizer

    @property
    def shared(self) -> bool:
        """Whether both languages have the same vocabulary."""
        return self.source is self.target

    def save(self, directory: Path) -> None:
        """Write the model files and, last, their description into ``directory``.

        The files are ``shared.model``, or ``source.model`` and ``target.model`` (SentencePiece's
        own format), and ``tokenizer.json``. Each is complete or not there at all.
        """
        directory.mkdir(parents=True, exist_ok=True)
        tokenizers = (
            {"shared": self.source}
            if self.shared
            else {"source": self.source, "target": self.target}
        )
        description = {
            name: {
                "sha256": hashlib.sha256(tokenizer.model).hexdigest(),
                "subword_regularization": tokenizer.subword_regularization,
            }
            for name, tokenizer in tokenizers.items()
        }
        for name, tokenizer in tokenizers.items():
            write_file(directory / f"{name}.model", tokenizer.model)
        write_file(directory / DESCRIPTION_FILE, json.dumps(description, indent=2) + "\n")

    @classmethod
    def load(cls, directory: Path) -> Self:
        """Read what :meth:`save` wrote.

        Raises:
            InputError: a file is missing, damaged or not the one that was saved; the message names
                it.
        """
        path = directory / DESCRIPTION_FILE
        try:
            description = json.loads(_read_file(path))
            names = set(description)
            loaded = {
                name: _load_model(
                    directory / f"{name}.model",
                    str(description[name]["sha256"]),
                    float(description[name]["subword_regularization"]),
                )
                for name in names & {"shared", "source", "target"}
            }
        except InputError:
            raise
        except (ValueError, TypeError, KeyError):
            names = set()
        if names == {"shared"}:
            return cls(loaded["shared"], loaded["shared"])
        if names == {"source", "target"}:
            return cls(loaded["source"], loaded["target"])
        raise InputError(f"{path} must describe a tokenizer, got something else.")


def train_tokenizer(
    config: TokenizerConfig, pairs: Sequence[SentencePair], *, seed: int
) -> TranslationTokenizer:
    """Train on a random sample of ``pairs``; the same arguments give the same bytes.

    Raises:
        InputError: there is no text, or it is too little (or too varied) for ``vocab_size``; the
            message names the largest (smallest) size that works.
    """
    sample = _draw_sample(pairs, config.sample_size, seed)
    source_texts = [pair.source for pair in sample]
    target_texts = [pair.target for pair in sample]
    if config.shared:
        tokenizer = _train(config, source_texts + target_texts, "source and target")
        return TranslationTokenizer(tokenizer, tokenizer)
    return TranslationTokenizer(
        _train(config, source_texts, "source"), _train(config, target_texts, "target")
    )


def train_text_tokenizer(
    config: TokenizerConfig, texts: Sequence[str], *, seed: int
) -> TranslationTokenizer:
    """Train on a random sample of texts of one language; otherwise as :func:`train_tokenizer`.

    Both sides of what it returns are the same.
    """
    tokenizer = _train(config, _draw_sample(texts, config.sample_size, seed), "training")
    return TranslationTokenizer(tokenizer, tokenizer)


def _draw_sample(items: Sequence[Item], size: int, seed: int) -> list[Item]:
    if len(items) <= size:
        return [items[index] for index in range(len(items))]
    indices = np.random.default_rng(seed).choice(len(items), size=size, replace=False)
    return [items[index] for index in np.sort(indices).tolist()]


def _train(config: TokenizerConfig, texts: Sequence[str], side: str) -> Tokenizer:
    texts = [replace_surrogates(text) for text in texts if text.strip()]
    if not texts:
        raise InputError(f"there must be some {side} text to train a tokenizer, got none.")
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=model,
            vocab_size=config.vocab_size,
            model_type=config.algorithm,
            character_coverage=config.character_coverage,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            pad_id=0,
            bos_id=1,
            eos_id=2,
            unk_id=3,
            num_threads=_TRAINING_THREADS,
            # Longer texts would be left out without a word.
            max_sentence_length=max(_SHORT_TEXT, *(len(text.encode()) for text in texts)),
            minloglevel=2,
        )
    except RuntimeError as error:
        raise _explain(error, config.vocab_size, side) from None
    return Tokenizer(model.getvalue(), config.subword_regularization)


def _explain(error: RuntimeError, vocab_size: int, side: str) -> InputError:
    """Turn SentencePiece's message into one that says what to change."""
    message = str(error)
    if largest := re.search(r"set it to a value <= (\d+)", message):
        return InputError(
            f"vocab_size must be at most {largest[1]} for this {side} text, got {vocab_size}."
        )
    if smallest := re.search(r"required_chars\. \d+ vs (\d+)", message):
        return InputError(
            f"vocab_size must be at least {smallest[1]} for the characters of this {side} text "
            f"(or character_coverage lower), got {vocab_size}."
        )
    return InputError(f"the {side} text must fit a tokenizer, got: {message.splitlines()[0]}")


def _load_model(path: Path, sha256: str, subword_regularization: float) -> Tokenizer:
    model = _read_file(path)
    if hashlib.sha256(model).hexdigest() != sha256:
        raise InputError(f"{path} must be the file that was saved, got one with another SHA-256.")
    try:
        return Tokenizer(model, subword_regularization)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _read_file(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} must be a readable file, got: {error.strerror}.") from None
