"""What a position in a stream of batches belongs to, so that no other stream takes it.

Grain restores a position into any stream: with another corpus, tokenizer or seed, training would go
on silently with other data. Here the position carries a fingerprint of its stream.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import grain

from flax_transformer.data.batch import AnyBatch
from flax_transformer.data.corpus import read_pairs, spread_evenly
from flax_transformer.data.sentence_pair import SentencePair
from flax_transformer.data.tokenizer import TranslationTokenizer
from flax_transformer.errors import InputError

_NUM_SAMPLED_PAIRS = 1000
_CHUNK_SIZE = 8192


@runtime_checkable
class DigestedCorpus(Protocol):
    """A corpus that can tell a hash of all that its pairs depend on without decoding them."""

    def digest(self) -> str | None:
        """Return the hash, if there is one."""


def digest_pairs(pairs: Sequence[SentencePair]) -> str:
    """Return the number of ``pairs`` and a hash of at most 1,000 of them, spread evenly.

    >>> digest_pairs([SentencePair("a", "b")])
    '1 pairs, 0eee9b87'
    """
    sha256 = hashlib.sha256()
    for pair in spread_evenly(pairs, _NUM_SAMPLED_PAIRS):
        sha256.update(repr(tuple(pair)).encode("utf-8", "backslashreplace"))
    return f"{len(pairs)} pairs, {sha256.hexdigest()[:8]}"


def digest_texts(texts: Sequence[Any]) -> str:
    """Return the number of ``texts``, with or without a class, and a hash of all of them.

    >>> digest_texts(["a", "b"])
    '2 texts, a2af34d1'
    """
    sha256 = hashlib.sha256()
    for text in texts:
        sha256.update(repr(text).encode("utf-8", "backslashreplace"))
    return f"{len(texts)} texts, {sha256.hexdigest()[:8]}"


def digest_all_pairs(pairs: Sequence[SentencePair]) -> str:
    """Return a SHA-256 of every pair, or of the files that they are decoded from.

    Unlike :func:`digest_pairs` it changes with any of the pairs, at the price of reading them all.

    >>> digest_all_pairs([SentencePair("a", "b")])[:8]
    'cccb00f1'
    """
    if isinstance(pairs, DigestedCorpus) and (digest := pairs.digest()):
        return digest
    sha256 = hashlib.sha256()
    for start in range(0, len(pairs), _CHUNK_SIZE):
        chunk = read_pairs(pairs, range(start, min(start + _CHUNK_SIZE, len(pairs))))
        sha256.update(json.dumps(chunk).encode())
    return sha256.hexdigest()


def digest_tokenizer(tokenizer: TranslationTokenizer) -> str:
    """Return a hash of both models, and the exponent of subword regularisation."""
    models = hashlib.sha256(tokenizer.source.model + tokenizer.target.model).hexdigest()[:8]
    return f"{models}, subword_regularization {tokenizer.source.subword_regularization}"


class FingerprintedDataset(grain.IterDataset):
    """A dataset whose iterators refuse the position of another stream.

    Args:
        parent: the stream.
        fingerprint: names and values of all that determines it.
    """

    def __init__(self, parent: grain.IterDataset, fingerprint: Mapping[str, str]) -> None:
        super().__init__(parent)
        self._fingerprint = dict(fingerprint)

    def __iter__(self) -> grain.DatasetIterator:
        return _FingerprintedIterator(iter(self.parents[0]), self._fingerprint)


class _FingerprintedIterator(grain.DatasetIterator):
    def __init__(self, parent: grain.DatasetIterator, fingerprint: dict[str, str]) -> None:
        super().__init__(parent)
        self._batches: Iterator[AnyBatch] = parent
        self._fingerprint = fingerprint

    def __next__(self) -> AnyBatch:
        return next(self._batches)

    def get_state(self) -> dict[str, Any]:
        return {"position": self._parent.get_state(), "stream": dict(self._fingerprint)}

    def set_state(self, state: dict[str, Any]) -> None:
        saved = state["stream"]
        for name in {**self._fingerprint, **saved}:
            now, then = self._fingerprint.get(name, "nothing"), saved.get(name, "nothing")
            if now != then:
                raise InputError(
                    f"{name} must be the same as when the position in the data was saved ({then}), "
                    f"got {now}. Restore the old value, start a new run, or begin the data anew "
                    "with --restart-data."
                )
        self._parent.set_state(state["position"])
