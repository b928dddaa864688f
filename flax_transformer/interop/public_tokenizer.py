"""Find the tokenizers of a public model, and write those of ours as public ones."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sentencepiece
import tokenizers

from flax_transformer.data.public_tokenizer import (
    SOURCE_PIECES_FILE,
    TARGET_PIECES_FILE,
    TARGET_VOCABULARY_FILE,
    TOKENIZER_FILE,
    VOCABULARY_FILE,
    PublicTokenizer,
    TokenizerDescription,
    make_public_tokenizer,
)
from flax_transformer.data.sentencepiece_model import Tokenizer
from flax_transformer.data.tokenizer import TranslationTokenizer
from flax_transformer.errors import InputError, one_line
from flax_transformer.interop.generation_defaults import GenerationDefaults
from flax_transformer.json_config import read_json_object
from flax_transformer.models.transformer_config import TransformerConfig

_CONFIG_FILE = "tokenizer_config.json"
_TOKENS_FILE = "special_tokens_map.json"

_FILES = (
    TOKENIZER_FILE,
    _CONFIG_FILE,
    _TOKENS_FILE,
    "added_tokens.json",
    SOURCE_PIECES_FILE,
    TARGET_PIECES_FILE,
    VOCABULARY_FILE,
    TARGET_VOCABULARY_FILE,
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
)
"""What a tokenizer may consist of; all that is there is kept, to be written again."""

_logger = logging.getLogger(__name__)


def read_tokenizer(
    directory: Path, config: TransformerConfig, generation: GenerationDefaults
) -> PublicTokenizer | None:
    """Read a public model's tokenizers; None where its directory has none that is known.

    Raises:
        InputError: a file is damaged, or does not fit the model.
    """
    files = {
        name: (directory / name).read_bytes() for name in _FILES if (directory / name).is_file()
    }
    is_json = TOKENIZER_FILE in files
    if not is_json and not {SOURCE_PIECES_FILE, TARGET_PIECES_FILE} <= files.keys():
        return None
    named = _named_tokens(directory, files, is_json=is_json)
    is_pair = config.architecture == "encoder_decoder"
    eos_id = _first_known(generation.eos_ids[:1], named, "eos_token", "sep_token")
    bos_ids = (generation.start_id,) if is_pair else ()
    bos_id = _first_known(bos_ids, named, "cls_token", "bos_token")
    if bos_id is None:
        bos_id = _first_known((generation.bos_id, eos_id), {})
    pad_id = _first_known((generation.pad_id,), named, "pad_token")
    mask_id = _first_known((), named, "mask_token", "unk_token")
    if eos_id is None or bos_id is None:
        _logger.warning("%s says of no token that it ends a text: no tokenizer", directory)
        return None
    description = TokenizerDescription(
        kind="json" if is_json else "pieces",
        source_vocab_size=config.source_vocab_size,
        target_vocab_size=config.target_vocab_size,
        # Where nothing pads, the end token does.
        pad_id=eos_id if pad_id is None else pad_id,
        bos_id=bos_id,
        eos_id=eos_id,
        mask_id=eos_id if mask_id is None else mask_id,
        source_prefix_ids=_prefix_ids(files, directory, eos_id) if is_json and is_pair else (),
    )
    try:
        return make_public_tokenizer(files, description)
    except InputError as error:
        raise InputError(f"{directory}: {error}") from None


def tokenizer_files(tokenizer: TranslationTokenizer) -> dict[str, bytes]:
    """Return the files of a tokenizer in the layout of the ``transformers`` library.

    Those of a public model are what they were; SentencePiece models become Marian's.
    """
    if isinstance(tokenizer, PublicTokenizer):
        return dict(tokenizer.files)
    source, target = tokenizer.source, tokenizer.target
    if not (isinstance(source, Tokenizer) and isinstance(target, Tokenizer)):
        raise InputError(
            f"the tokenizer must be of SentencePiece models, got {type(source).__name__}."
        )
    pieces, target_pieces = _pieces(source), _pieces(target)
    settings: dict[str, Any] = {
        "tokenizer_class": "MarianTokenizer",
        "source_lang": "source",
        "target_lang": "target",
        "separate_vocabs": not tokenizer.shared,
        "pad_token": pieces[source.pad_id],
        "eos_token": pieces[source.eos_id],
        "unk_token": pieces[source.unk_id],
    }
    files = {
        SOURCE_PIECES_FILE: source.model,
        TARGET_PIECES_FILE: target.model,
        VOCABULARY_FILE: _json({piece: index for index, piece in enumerate(pieces)}),
        _CONFIG_FILE: _json(settings),
    }
    if not tokenizer.shared:
        table = {piece: index for index, piece in enumerate(target_pieces)}
        files[TARGET_VOCABULARY_FILE] = _json(table)
    return files


def _pieces(tokenizer: Tokenizer) -> list[str]:
    processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model)
    return [processor.id_to_piece(index) for index in range(processor.get_piece_size())]


def _json(values: Mapping[str, Any]) -> bytes:
    return f"{json.dumps(values, ensure_ascii=False, indent=2)}\n".encode()


def _named_tokens(directory: Path, files: Mapping[str, bytes], *, is_json: bool) -> dict[str, int]:
    """Map the tokens that the tokenizer's own config names, as ``eos_token``, to their ids."""
    values: dict[str, Any] = {}
    for file in (_TOKENS_FILE, _CONFIG_FILE):
        if file in files:
            values |= read_json_object(directory / file)
    if is_json:
        vocabulary = _load(files, directory).get_vocab()
    else:
        vocabulary = read_json_object(directory / VOCABULARY_FILE)
    named = {}
    for name, value in values.items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            token_id = vocabulary.get(text)
            if isinstance(token_id, int):
                named[name] = token_id
    return named


def _prefix_ids(files: Mapping[str, bytes], directory: Path, eos_id: int) -> tuple[int, ...]:
    """Return what the tokenizer puts before every text, of what it puts around one."""
    ids = _load(files, directory).encode("").ids
    return tuple(ids[: ids.index(eos_id)] if eos_id in ids else ids)


def _load(files: Mapping[str, bytes], directory: Path) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer.from_str(files[TOKENIZER_FILE].decode())
    except Exception as error:  # of no narrower type
        raise InputError(
            f"{directory / TOKENIZER_FILE} must hold a tokenizer: {one_line(error)}."
        ) from error


def _first_known(ids: tuple[int | None, ...], named: Mapping[str, int], *names: str) -> int | None:
    """Return the first id that is one, of ``ids`` and then of the names."""
    return next((each for each in (*ids, *map(named.get, names)) if each is not None), None)
