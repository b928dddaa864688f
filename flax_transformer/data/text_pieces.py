"""Documents as token ids, cut into pieces that fit into a row."""

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from typing import NamedTuple, overload

import numpy as np

from flax_transformer.array_types import Int
from flax_transformer.data.text_tokenizer import TextTokenizer


class TextPiece(NamedTuple):
    """A part of a document: what is read, and what is predicted, position by position."""

    tokens: Int[np.ndarray, " T"]
    labels: Int[np.ndarray, " T"]


def encode_documents(
    tokenizer: TextTokenizer, documents: Sequence[str], *, joined: bool
) -> list[Int[np.ndarray, " T"]]:
    """Return the token ids of each document, with the end token; of all in one if ``joined``."""
    eos_id = tokenizer.eos_id
    encoded = [np.array([*ids, eos_id], np.int32) for ids in tokenizer.encode_batch(documents)]
    return [np.concatenate(encoded)] if joined else encoded


class TextPieces(Sequence[TextPiece]):
    """The pieces of documents, by their number.

    For a causal language model a piece is up to ``length`` tokens to predict, each from what is
    before it: the first one from the token before the piece, or from the start token. The start
    token is also what is read before a document that follows another one, in place of the end token
    that is predicted there: every document begins as a text that is generated does. The pieces
    together predict every token once. For a masked one (``is_masked``) a piece is what is to be
    restored, up to ``length`` tokens with a start token before it and an end token behind.

    Args:
        documents: token ids, each with its end token.
        length: of the longest piece, at least 3.
        bos_id: the start token.
        is_masked: for which kind of model.
    """

    def __init__(
        self,
        documents: Sequence[Int[np.ndarray, " T"]],
        *,
        length: int,
        bos_id: int,
        is_masked: bool,
    ) -> None:
        self._is_masked = is_masked
        self._bos_id = bos_id
        self._size = length - 2 if is_masked else length
        # A masked piece brings the end token of its own.
        self._documents = [ids[:-1] for ids in documents] if is_masked else list(documents)
        self._eos_id = documents[0][-1] if documents else 0
        counts = [-(-len(ids) // self._size) for ids in self._documents]
        self._ends = np.cumsum(counts, dtype=np.int64).tolist()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def digest(self) -> str:
        """Return the number of pieces, and a hash of all tokens and of where documents end."""
        sha256 = hashlib.sha256()
        for ids in self._documents:
            sha256.update(len(ids).to_bytes(8, "little") + ids.tobytes())
        return f"{len(self)} pieces, {sha256.hexdigest()[:8]}"

    @overload
    def __getitem__(self, index: int) -> TextPiece: ...

    @overload
    def __getitem__(self, index: slice) -> list[TextPiece]: ...

    def __getitem__(self, index: int | slice) -> TextPiece | list[TextPiece]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(f"index must be from 0 to {len(self) - 1}, got {index}")
        number = bisect_right(self._ends, index)
        ids = self._documents[number]
        start = (index - (self._ends[number - 1] if number else 0)) * self._size
        labels = ids[start : start + self._size]
        if self._is_masked:
            whole = np.concatenate(([self._bos_id], labels, [self._eos_id]), dtype=np.int32)
            return TextPiece(whole, whole)
        before = self._bos_id if start == 0 else ids[start - 1]
        tokens = np.concatenate(([before], labels[:-1]), dtype=np.int32)
        tokens[tokens == self._eos_id] = self._bos_id
        return TextPiece(tokens, labels)
