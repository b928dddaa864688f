"""Marian's tokenizers: SentencePiece splits the text, and a table of its own numbers the pieces."""

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence

import numpy as np
import sentencepiece

from flax_transformer.data.sentencepiece_model import replace_surrogates
from flax_transformer.errors import InputError

_UNKNOWN = "<unk>"


@dataclasses.dataclass(frozen=True, kw_only=True)
class PieceTokenizer:
    """A SentencePiece model and a vocabulary of its pieces.

    Text never becomes a special token. What has no token becomes the unknown one.

    Attributes:
        pieces_model: a serialised SentencePiece model.
        vocabulary: JSON, an object of pieces and their ids.
        vocab_size: tokens of the model that it serves.
        pad_id: id of the padding.
        bos_id: id of what the decoder reads first.
        eos_id: id of the end token.
        mask_id: id that stands for a hidden token.
        prefix_ids: what every encoded text begins with, such as the language to translate to.

    Raises:
        InputError: the files are not such ones, or have tokens beyond ``vocab_size``.
    """

    pieces_model: bytes
    vocabulary: bytes
    vocab_size: int
    pad_id: int
    bos_id: int
    eos_id: int
    mask_id: int
    prefix_ids: tuple[int, ...] = ()
    subword_regularization: float = 0.0

    def __post_init__(self) -> None:
        largest = max(self._ids.values(), default=0)
        if largest >= self.vocab_size:
            raise InputError(
                f"vocab.json must have tokens of the model's {self.vocab_size} alone, got id "
                f"{largest}."
            )
        if self.subword_regularization:
            raise InputError("subword_regularization must be 0 for a pair of SentencePiece files.")
        _ = self._processor  # what is no model is found here

    def __getstate__(self) -> dict[str, object]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @property
    def model(self) -> bytes:
        """The two files behind one another."""
        return self.pieces_model + self.vocabulary

    @functools.cached_property
    def _processor(self) -> sentencepiece.SentencePieceProcessor:
        try:
            if self.pieces_model:
                return sentencepiece.SentencePieceProcessor(model_proto=self.pieces_model)
        except RuntimeError:
            pass
        raise InputError("source.spm and target.spm must be SentencePiece models, got other bytes.")

    @functools.cached_property
    def _ids(self) -> Mapping[str, int]:
        try:
            ids = json.loads(self.vocabulary)
        except ValueError:
            ids = None
        if not (isinstance(ids, dict) and all(type(i) is int and i >= 0 for i in ids.values())):
            raise InputError("vocab.json must be an object of pieces and their ids.")
        if _UNKNOWN not in ids:
            raise InputError(f"vocab.json must have the token {_UNKNOWN}.")
        return ids

    @functools.cached_property
    def _pieces(self) -> Mapping[int, str]:
        return {index: piece for piece, index in self._ids.items()}

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text`` behind the prefix, without start and end tokens."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return ``[encode(text) for text in texts]``, faster."""
        clean = [replace_surrogates(text) for text in texts]
        unknown = self._ids[_UNKNOWN]
        return [
            [*self.prefix_ids, *(self._ids.get(piece, unknown) for piece in pieces)]
            for pieces in self._processor.encode(clean, out_type=str, num_threads=1)
        ]

    def sample(self, text: str, rng: np.random.Generator) -> list[int]:
        """Return what :meth:`encode` does: the best segmentation."""
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
        pieces = [self._pieces.get(each, _UNKNOWN) for each in plain]
        return str(self._processor.decode_pieces(pieces)).strip()
