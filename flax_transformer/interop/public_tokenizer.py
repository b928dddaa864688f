"""Find the tokenizers of a public model, and write those of ours as public ones."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import sentencepiece

from flax_transformer.data.json_tokenizer import load_tokenizer_json
from flax_transformer.data.piece_tokenizer import load_vocabulary
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
from flax_transformer.errors import InputError
from flax_transformer.interop.generation_defaults import GenerationDefaults
from flax_transformer.interop.special_tokens import (
    Template,
    guess_tokens,
    name_tokens,
    read_template,
)
from flax_transformer.interop.vocabulary_files import (
    MERGES_FILE,
    UNIGRAM_FILE,
    WORDS_FILE,
    make_byte_pairs,
    make_unigram,
    make_word_piece,
)
from flax_transformer.json_config import read_json_object
from flax_transformer.models.transformer_config import TransformerConfig

_CONFIG_FILE = "tokenizer_config.json"
_TOKENS_FILE = "special_tokens_map.json"
_ADDED_FILE = "added_tokens.json"
_PAIR_OF_PIECES = {SOURCE_PIECES_FILE, TARGET_PIECES_FILE}

_FILES = (
    TOKENIZER_FILE,
    _CONFIG_FILE,
    _TOKENS_FILE,
    _ADDED_FILE,
    SOURCE_PIECES_FILE,
    TARGET_PIECES_FILE,
    VOCABULARY_FILE,
    TARGET_VOCABULARY_FILE,
    WORDS_FILE,
    MERGES_FILE,
    UNIGRAM_FILE,
    "tokenizer.model",
    "sentencepiece.bpe.model",
)
"""What a tokenizer may consist of; all that is there is kept, to be written again."""

_logger = logging.getLogger(__name__)


def read_tokenizer(
    directory: Path, config: TransformerConfig, generation: GenerationDefaults
) -> PublicTokenizer | None:
    """Read a public model's tokenizers; None where its directory has none that is known.

    Where there are older files in place of ``tokenizer.json``, it is made of them, and written
    beside them when the model is saved.

    Raises:
        InputError: a file is damaged, or does not fit the model.
    """
    files = {
        name: (directory / name).read_bytes() for name in _FILES if (directory / name).is_file()
    }
    settings = _read_settings(directory, files)
    try:
        files |= _make_tokenizer_json(files, config, settings)
        is_json = TOKENIZER_FILE in files
        if not is_json and not files.keys() >= _PAIR_OF_PIECES:
            _warn_of_unread(directory, files)
            return None
        description = _describe(files, settings, config, generation)
        if description is None:
            _logger.warning("%s says of no token that it ends a text: no tokenizer", directory)
            return None
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


def _read_settings(directory: Path, files: Mapping[str, bytes]) -> dict[str, Any]:
    """Return what the tokenizer's own configs say."""
    values: dict[str, Any] = {}
    for file in (_TOKENS_FILE, _CONFIG_FILE):
        if file in files:
            values |= read_json_object(directory / file)
    return values


def _make_tokenizer_json(
    files: Mapping[str, bytes], config: TransformerConfig, settings: Mapping[str, Any]
) -> dict[str, bytes]:
    """Make the file of the older ones of a family that had such; nothing where it is not known."""
    names = files.keys()
    if TOKENIZER_FILE in names or names >= _PAIR_OF_PIECES or _ADDED_FILE in names:
        return {}
    if WORDS_FILE in names and config.architecture == "encoder_only":
        return {TOKENIZER_FILE: make_word_piece(files[WORDS_FILE], settings)}
    if {VOCABULARY_FILE, MERGES_FILE} <= names and config.position_encoding == "learned":
        table, merges = files[VOCABULARY_FILE], files[MERGES_FILE]
        return {TOKENIZER_FILE: make_byte_pairs(table, merges, settings)}
    if UNIGRAM_FILE in names and config.position_encoding == "relative":
        return {TOKENIZER_FILE: make_unigram(files[UNIGRAM_FILE], settings)}
    return {}


def _describe(
    files: Mapping[str, bytes],
    settings: Mapping[str, Any],
    config: TransformerConfig,
    generation: GenerationDefaults,
) -> TokenizerDescription | None:
    """Find the tokens with a meaning; None where nothing says what ends a text."""
    size = min(config.source_vocab_size, config.target_vocab_size)
    is_json, is_pair = TOKENIZER_FILE in files, config.architecture == "encoder_decoder"
    template = Template((), ())
    if is_json:
        tokenizer = load_tokenizer_json(files[TOKENIZER_FILE])
        template = read_template(tokenizer)
        named = guess_tokens(tokenizer, template, vocab_size=size)
        named |= name_tokens(settings, tokenizer.get_vocab(), vocab_size=size)
    else:
        table = load_vocabulary(files.get(VOCABULARY_FILE, b""))
        named = name_tokens(settings, table, vocab_size=size)
    ends = generation.eos_ids
    own_end = named.get("eos_token")
    eos_id = own_end if own_end in ends else _first_known(ends[:1], named, "eos_token", "sep_token")
    bos_ids = (generation.start_id,) if is_pair else ()
    bos_id = _first_known(bos_ids, named, "cls_token", "bos_token")
    if bos_id is None:
        bos_id = _first_known((generation.bos_id, eos_id), {})
    pad_id = _first_known((generation.pad_id,), named, "pad_token")
    if eos_id is None or bos_id is None:
        return None
    return TokenizerDescription(
        kind="json" if is_json else "pieces",
        source_vocab_size=config.source_vocab_size,
        target_vocab_size=config.target_vocab_size,
        # Where nothing pads, the end token does.
        pad_id=eos_id if pad_id is None else pad_id,
        bos_id=bos_id,
        eos_id=eos_id,
        # The unknown token of pieces stands for a hidden one, as in the tokenizers trained here.
        mask_id=_first_known((), named, "mask_token", *(() if is_json else ("unk_token",))),
        source_prefix_ids=template.before if is_pair else (),
        prompt_ids=template.before,
    )


def _warn_of_unread(directory: Path, files: Mapping[str, bytes]) -> None:
    if unread := sorted(files.keys() - {_CONFIG_FILE, _TOKENS_FILE}):
        _logger.warning(
            "%s has no %s, and %s cannot be read here: no tokenizer",
            directory,
            TOKENIZER_FILE,
            ", ".join(unread),
        )


def _first_known(ids: tuple[int | None, ...], named: Mapping[str, int], *names: str) -> int | None:
    """Return the first id that is one, of ``ids`` and then of the names."""
    return next((each for each in (*ids, *map(named.get, names)) if each is not None), None)
