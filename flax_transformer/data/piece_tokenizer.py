"""Marian's tokenizers: SentencePiece splits the text, and a table of its own numbers the pieces."""

import dataclasses
import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import sentencepiece

from flax_transformer.data.sentencepiece_model import replace_surrogates
from flax_transformer.data.text_tokenizer import require_mask
from flax_transformer.errors import InputError

_UNKNOWN = "<unk>"
_CODE = re.compile(r">>.+?<<", re.DOTALL)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PieceTokenizer:
    """A SentencePiece model and a vocabulary of its pieces.

    Text never becomes a special token. What has no token becomes the unknown one. A model of many
    target languages has tokens of their codes, such as ``>>fr<<``: with ``reads_codes`` a code that
    a text begins with becomes its token, and SentencePiece splits what is behind it.

    Attributes:
        pieces_model: a serialised SentencePiece model.
        vocabulary: JSON, an object of pieces and their ids.
        vocab_size: tokens of the model that it serves.
        pad_id: id of the padding.
        bos_id: id of what the decoder reads first.
        eos_id: id of the end token.
        mask_token: id that stands for a hidden token; None where there is none.
        prefix_ids: what every encoded text begins with.
        reads_codes: whether a text may begin with a code of the vocabulary.

    Raises:
        InputError: the files are not such ones, or have text become tokens beyond ``vocab_size``.
    """

    pieces_model: bytes
    vocabulary: bytes
    vocab_size: int
    pad_id: int
    bos_id: int
    eos_id: int
    mask_token: int | None
    prefix_ids: tuple[int, ...] = ()
    reads_codes: bool = False
    subword_regularization: float = 0.0

    def __post_init__(self) -> None:
        processor = self._processor
        pieces = map(processor.id_to_piece, range(processor.get_piece_size()))
        of_text = {_UNKNOWN, *pieces, *(find_codes(self._ids) if self.reads_codes else ())}
        largest = max(self._ids.get(piece, 0) for piece in of_text)
        if largest >= self.vocab_size:
            raise InputError(
                f"vocab.json must have tokens of the model's {self.vocab_size} alone, got id "
                f"{largest}."
            )
        if self.subword_regularization:
            raise InputError("subword_regularization must be 0 for a pair of SentencePiece files.")

    def __getstate__(self) -> dict[str, object]:
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @property
    def model(self) -> bytes:
        """The two files behind one another."""
        return self.pieces_model + self.vocabulary

    @property
    def mask_id(self) -> int:
        """Id that stands for a hidden token.

        Raises:
            InputError: there is none.
        """
        return require_mask(self.mask_token)

    @property
    def prompt_ids(self) -> tuple[int, ...]:
        """What stands before a text that is continued: the start token."""
        return (self.bos_id,)

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
        return load_vocabulary(self.vocabulary)

    @functools.cached_property
    def _pieces(self) -> Mapping[int, str]:
        return {index: piece for piece, index in self._ids.items()}

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text`` behind the prefix, without start and end tokens."""
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Return ``[encode(text) for text in texts]``, faster.

        Raises:
            InputError: a text begins with a code that the vocabulary of a model of many target
                languages has not.
        """
        parted = [self._part_code(replace_surrogates(text)) for text in texts]
        unknown = self._ids[_UNKNOWN]
        split = self._processor.encode([text for _, text in parted], out_type=str, num_threads=1)
        return [
            [*self.prefix_ids, *code_ids, *(self._ids.get(piece, unknown) for piece in pieces)]
            for (code_ids, _), pieces in zip(parted, split, strict=True)
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

    def _part_code(self, text: str) -> tuple[tuple[int, ...], str]:
        """Return the token of the code that a text begins with, if any, and what is behind it."""
        found = _CODE.match(text) if self.reads_codes else None
        if found is None:
            return (), text
        if found[0] not in self._ids:
            raise InputError(
                f"a text must begin with a language code of the model or with none, got {found[0]}."
            )
        return (self._ids[found[0]],), text[found.end() :]


def load_vocabulary(content: bytes) -> dict[str, int]:
    """Read a table of pieces and their ids.

    Raises:
        InputError: it is no such table, or has no unknown token.
    """
    try:
        ids = json.loads(content)
    except (ValueError, RecursionError):
        ids = None
    if not (isinstance(ids, dict) and all(type(i) is int and i >= 0 for i in ids.values())):
        raise InputError("vocab.json must be an object of pieces and their ids.")
    if _UNKNOWN not in ids:
        raise InputError(f"vocab.json must have the token {_UNKNOWN}.")
    return ids


def find_codes(vocabulary: Iterable[str]) -> frozenset[str]:
    """Return the codes of target languages in a vocabulary.

    >>> find_codes([">>fr<<", ">>", "a"])
    frozenset({'>>fr<<'})
    """
    return frozenset(piece for piece in vocabulary if _CODE.fullmatch(piece))
