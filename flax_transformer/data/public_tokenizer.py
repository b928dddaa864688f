"""The tokenizers of a public model, with the files that they came from."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from flax_transformer.data.json_tokenizer import JsonTokenizer
from flax_transformer.data.piece_tokenizer import PieceTokenizer, find_codes, load_vocabulary
from flax_transformer.data.text_tokenizer import TextTokenizer
from flax_transformer.data.tokenizer import DESCRIPTION_FILE, TranslationTokenizer
from flax_transformer.errors import InputError
from flax_transformer.json_config import config_from_json, read_json_object
from flax_transformer.whole_file import write_file

_FILES_DIRECTORY = "public"

TOKENIZER_FILE = "tokenizer.json"
SOURCE_PIECES_FILE = "source.spm"
TARGET_PIECES_FILE = "target.spm"
VOCABULARY_FILE = "vocab.json"
TARGET_VOCABULARY_FILE = "target_vocab.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenizerDescription:
    """What the files do not say by themselves.

    Attributes:
        kind: ``tokenizer.json``, or Marian's two SentencePiece models and table of pieces.
        source_vocab_size: tokens of the model's source.
        target_vocab_size: tokens of the model's target.
        pad_id: id of the padding.
        bos_id: id of what a decoder reads first, or of what a text begins with.
        eos_id: id of the end token.
        mask_id: id that stands for a hidden token; None where there is none.
        source_prefix_ids: what every source begins with.
        prompt_ids: what stands before a text that is continued; of ``tokenizer.json`` alone.

    Raises:
        InputError: the model has no such token.
    """

    kind: Literal["json", "pieces"]
    source_vocab_size: int
    target_vocab_size: int
    pad_id: int
    bos_id: int
    eos_id: int
    mask_id: int | None
    source_prefix_ids: tuple[int, ...] = ()
    prompt_ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        size = min(self.source_vocab_size, self.target_vocab_size)
        for name in ("pad_id", "bos_id", "eos_id", "mask_id", "source_prefix_ids", "prompt_ids"):
            value = getattr(self, name)
            for token_id in value if isinstance(value, tuple) else (value,):
                if token_id is not None and not 0 <= token_id < size:
                    raise InputError(
                        f"the tokenizer's {name} must be below the model's {size} tokens, got "
                        f"{token_id}."
                    )


@dataclasses.dataclass(frozen=True)
class PublicTokenizer(TranslationTokenizer):
    """Tokenizers of both sides that are saved as the files they came from."""

    files: Mapping[str, bytes]
    description: TokenizerDescription

    def save(self, directory: Path) -> None:
        """Write the files and their description into ``directory``, each whole or not at all."""
        files = directory / _FILES_DIRECTORY
        files.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            write_file(files / name, content)
        description = {
            _FILES_DIRECTORY: {
                "description": dataclasses.asdict(self.description),
                "sha256": {
                    name: hashlib.sha256(content).hexdigest()
                    for name, content in self.files.items()
                },
            }
        }
        write_file(directory / DESCRIPTION_FILE, json.dumps(description, indent=2) + "\n")


def make_public_tokenizer(
    files: Mapping[str, bytes], description: TokenizerDescription
) -> PublicTokenizer:
    """Make the tokenizers of a model's files, by their names.

    Raises:
        InputError: a file is missing or not what it should be.
    """
    prefix = description.source_prefix_ids

    def tokenizer(is_source: bool) -> TextTokenizer:
        vocab_size = description.source_vocab_size if is_source else description.target_vocab_size
        if description.kind == "json":
            return JsonTokenizer(
                model=_take(files, TOKENIZER_FILE),
                vocab_size=vocab_size,
                pad_id=description.pad_id,
                bos_id=description.bos_id,
                eos_id=description.eos_id,
                mask_token=description.mask_id,
                prefix_ids=prefix if is_source else (),
                prompt_ids=description.prompt_ids,
            )
        own_table = not is_source and TARGET_VOCABULARY_FILE in files
        vocabulary = _take(files, TARGET_VOCABULARY_FILE if own_table else VOCABULARY_FILE)
        return PieceTokenizer(
            pieces_model=_take(files, SOURCE_PIECES_FILE if is_source else TARGET_PIECES_FILE),
            vocabulary=vocabulary,
            vocab_size=vocab_size,
            pad_id=description.pad_id,
            bos_id=description.bos_id,
            eos_id=description.eos_id,
            mask_token=description.mask_id,
            prefix_ids=prefix if is_source else (),
            reads_codes=is_source and bool(find_codes(load_vocabulary(vocabulary))),
        )

    source, target = tokenizer(True), tokenizer(False)
    return PublicTokenizer(source, source if source == target else target, files, description)


def load_tokenizer(directory: Path) -> TranslationTokenizer:
    """Read the tokenizers of a run or model directory, trained here or of a public model.

    Raises:
        InputError: a file is missing, damaged or not the one that was saved.
    """
    path = directory / DESCRIPTION_FILE
    if not (directory / _FILES_DIRECTORY).is_dir():
        return TranslationTokenizer.load(directory)
    values = read_json_object(path).get(_FILES_DIRECTORY)
    sums = values.get("sha256") if isinstance(values, dict) else None
    if not (isinstance(values, dict) and isinstance(sums, dict)):
        raise InputError(f"{path} must describe a tokenizer, got something else.")
    description = config_from_json(TokenizerDescription, values.get("description", {}), str(path))
    files = {}
    for name, expected in sums.items():
        file = directory / _FILES_DIRECTORY / Path(name).name
        try:
            files[name] = file.read_bytes()
        except OSError as error:
            raise InputError(f"{file} must be a readable file, got: {error.strerror}.") from error
        if hashlib.sha256(files[name]).hexdigest() != expected:
            raise InputError(f"{file} must be the file that was saved, got another SHA-256.")
    return make_public_tokenizer(files, description)


def _take(files: Mapping[str, bytes], name: str) -> bytes:
    if name not in files:
        raise InputError(f"the tokenizer must have the file {name}, got {', '.join(files)}.")
    return files[name]
