"""Tiny tokenizers in the files that public models had before ``tokenizer.json``."""

import io
import json
from pathlib import Path

import sentencepiece
from tiny_public_tokenizers import TEXTS, write_bart

NUM_EXTRA_IDS = 3


def write_words(directory: Path, *, lower_case: bool) -> int:
    """Write the ``vocab.txt`` of a BERT; return the size of the vocabulary."""
    letters = sorted(set("".join(TEXTS)) - {" ", "ã"})
    parts = [*letters, *(f"##{letter}" for letter in letters), "The", "the", "##leeps", "!"]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *parts]
    (directory / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    settings = {"do_lower_case": lower_case, "tokenizer_class": "BertTokenizer"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return len(words)


def write_byte_pairs(directory: Path, *, end: str | None) -> int:
    """Write ``vocab.json`` and ``merges.txt`` of a RoBERTa, or of a GPT-2 with this end token."""
    size = write_bart(directory)
    content = json.loads((directory / "tokenizer.json").read_text())
    (directory / "tokenizer.json").unlink()
    (directory / "tokenizer_config.json").unlink()
    table = content["model"]["vocab"]
    if end is not None:
        special = {token["content"] for token in content["added_tokens"]}
        kept = [piece for piece in sorted(table, key=table.__getitem__) if piece not in special]
        table = {piece: index for index, piece in enumerate([*kept, end])}
    merges = [" ".join(pair) for pair in content["model"]["merges"]]
    (directory / "vocab.json").write_text(json.dumps(table))
    (directory / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    return size if end is None else len(table)


def write_unigram(directory: Path) -> int:
    """Write the ``spiece.model`` of a T5; return the number of its pieces and hidden parts."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 4),
        model_writer=model,
        vocab_size=39,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
        num_threads=1,
    )
    (directory / "spiece.model").write_bytes(model.getvalue())
    settings = {"extra_ids": NUM_EXTRA_IDS, "tokenizer_class": "T5Tokenizer"}
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    return 39 + NUM_EXTRA_IDS
