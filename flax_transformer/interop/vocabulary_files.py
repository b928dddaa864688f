"""Make the ``tokenizer.json`` of public models that have their tokenizer in older files alone."""

import json
from collections.abc import Mapping
from typing import Any

import sentencepiece
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from flax_transformer.errors import InputError, one_line

WORDS_FILE = "vocab.txt"
MERGES_FILE = "merges.txt"
UNIGRAM_FILE = "spiece.model"

_BERT_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
_ROBERTA_TOKENS = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
_GPT2_TOKEN = "<|endoftext|>"
_NUM_EXTRA_IDS = 100
"""Tokens of T5 that stand for hidden parts of a text, behind those of its SentencePiece model."""


def make_word_piece(words: bytes, settings: Mapping[str, Any]) -> bytes:
    """Make the tokenizer of BERT and DistilBERT of its ``vocab.txt``, a token in every line.

    Raises:
        InputError: the file is no such list, or has not all special tokens.
    """
    lines = _text(WORDS_FILE, words).removesuffix("\n").split("\n")
    vocabulary = {line.rstrip("\r"): index for index, line in enumerate(lines)}
    if lacking := [token for token in _BERT_TOKENS if token not in vocabulary]:
        raise InputError(f"{WORDS_FILE} must have the tokens of BERT, got none of {lacking[0]}.")
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=settings.get("tokenize_chinese_chars", True) is not False,
        strip_accents=_flag_or_none(settings.get("strip_accents")),
        lowercase=settings.get("do_lower_case", True) is not False,
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(list(_BERT_TOKENS))
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(token, vocabulary[token]) for token in ("[CLS]", "[SEP]")],
    )
    return tokenizer.to_str().encode()


def make_byte_pairs(table: bytes, merges: bytes, settings: Mapping[str, Any]) -> bytes:
    """Make the tokenizer of GPT-2, RoBERTa and BART of ``vocab.json`` and ``merges.txt``.

    RoBERTa's and BART's have ``<s>`` and ``</s>``, which they put around a text.

    Raises:
        InputError: the files are not such ones, or do not fit one another.
    """
    lines = [line.rstrip("\r") for line in _text(MERGES_FILE, merges).split("\n")]
    parted = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    try:
        vocabulary = json.loads(table)
        pairs = [(left, right) for left, right in parted]
        tokenizer = Tokenizer(models.BPE(vocabulary, pairs))
    except Exception as error:  # the library has no narrower type
        raise InputError(
            f"vocab.json and {MERGES_FILE} must hold byte pairs: {one_line(error)}."
        ) from error
    spaced = settings.get("add_prefix_space") is True
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaced)
    tokenizer.decoder = decoders.ByteLevel()
    known = [token for token in (*_ROBERTA_TOKENS, _GPT2_TOKEN) if token in vocabulary]
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, lstrip=token == "<mask>") for token in known]
    )
    if {"<s>", "</s>"} <= set(known):
        tokenizer.post_processor = TemplateProcessing(
            single="<s> $A </s>",
            pair="<s> $A </s> </s> $B </s>",
            special_tokens=[(token, vocabulary[token]) for token in ("<s>", "</s>")],
        )
    return tokenizer.to_str().encode()


def make_unigram(model: bytes, settings: Mapping[str, Any]) -> bytes:
    """Make the tokenizer of T5 of its SentencePiece model.

    Raises:
        InputError: it is no unigram model, or has no end token.
    """
    try:
        if not model:
            raise InputError(f"{UNIGRAM_FILE} must be a SentencePiece model, got an empty file.")
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        size = processor.get_piece_size()
        pieces = [(processor.id_to_piece(i), processor.get_score(i)) for i in range(size)]
        has_bytes = any(map(processor.is_byte, range(size)))
        tokenizer = Tokenizer(models.Unigram(pieces, processor.unk_id(), byte_fallback=has_bytes))
        char_map = _field(_field(model, 3), 2)  # normalizer_spec.precompiled_charsmap
    except InputError:
        raise
    except Exception as error:  # the library has no narrower type
        raise InputError(
            f"{UNIGRAM_FILE} must be a SentencePiece model: {one_line(error)}."
        ) from error
    if processor.eos_id() < 0:
        raise InputError(f"{UNIGRAM_FILE} must have an end token, got a model without one.")
    if char_map:
        tokenizer.normalizer = normalizers.Precompiled(char_map)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()]
    )
    tokenizer.decoder = decoders.Metaspace()
    control = [piece for index, (piece, _) in enumerate(pieces) if processor.is_control(index)]
    extra = settings.get("extra_ids")
    num_extra = extra if type(extra) is int else _NUM_EXTRA_IDS
    hidden = [f"<extra_id_{index}>" for index in reversed(range(num_extra))]
    tokenizer.add_special_tokens([*control, processor.id_to_piece(processor.unk_id()), *hidden])
    end = processor.id_to_piece(processor.eos_id())
    tokenizer.post_processor = TemplateProcessing(
        single=f"$A {end}",
        pair=f"$A {end} $B {end}",
        special_tokens=[(end, processor.eos_id())],
    )
    return tokenizer.to_str().encode()


def _text(name: str, content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{name} must hold UTF-8, got: {one_line(error)}.") from error


def _flag_or_none(value: object) -> bool | None:
    return value if isinstance(value, bool) else None


def _field(message: bytes, number: int) -> bytes:
    """Return the last bytes of a field of a message in the encoding of Protocol Buffers.

    >>> _field(bytes([8, 5, 26, 2]) + b"ab", 3)
    b'ab'
    """
    found, place = b"", 0

    def read_number() -> int:
        nonlocal place
        value = shift = 0
        while True:
            byte = message[place]
            place += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while place < len(message):
        key = read_number()
        if key & 7 == 2:
            size = read_number()
            if key >> 3 == number:
                found = message[place : place + size]
            place += size
        elif key & 7 == 0:
            read_number()
        else:
            place += 8 if key & 7 == 1 else 4
    return found
