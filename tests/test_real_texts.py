"""Real texts of one language, where they lie: the folders ``sst2`` and ``mono``."""

import os
from pathlib import Path

import numpy as np
import pytest

from flax_transformer.config import read_config_file
from flax_transformer.data.sources import load_documents, load_labelled_texts
from flax_transformer.data.text_pieces import TextPieces, encode_documents
from flax_transformer.data.tokenizer import TokenizerConfig, train_text_tokenizer

REPOSITORY = Path(__file__).parents[1]
DATA = Path(os.environ.get("FLAX_TRANSFORMER_DATA", ""))

pytestmark = pytest.mark.skipif(
    "FLAX_TRANSFORMER_DATA" not in os.environ
    or not (DATA / "sst2").is_dir()
    or not (DATA / "mono").is_dir(),
    reason="needs the folders sst2 and mono below $FLAX_TRANSFORMER_DATA",
)


def test_texts_with_a_class_are_read_whole():
    data = read_config_file(REPOSITORY / "configs" / "sst2.py").data
    for split in (data.train, data.dev, data.test):
        lines = (DATA / "sst2" / f"{split}.tsv").read_text(encoding="utf-8").splitlines()
        texts = load_labelled_texts(data, split)
        assert [f"{text.label}\t{text.text}" for text in texts] == lines


def test_the_parts_of_a_text_are_the_whole_and_come_back_from_their_pieces():
    data = read_config_file(REPOSITORY / "configs" / "shakespeare.py").data
    parts = [load_documents(data, split) for split in (data.train, data.dev, data.test)]
    lines = [line for part in parts for document in part for line in document.split("\n")]
    text = (DATA / "mono" / "tinyshakespeare.txt").read_text(encoding="utf-8")
    assert lines == [line for line in text.split("\n") if line.strip()]

    documents = parts[1]
    config = TokenizerConfig(vocab_size=500)
    side = train_text_tokenizer(config, "\n".join(documents).split("\n"), seed=0).source
    encoded = encode_documents(side, documents, joined=False)
    pieces = TextPieces(encoded, length=64, bos_id=side.bos_id, is_masked=False)
    labels = np.concatenate([piece.labels for piece in pieces])
    ends = np.flatnonzero(labels == side.eos_id)
    found = [side.decode(ids.tolist()) for ids in np.split(labels, ends + 1)[:-1]]
    assert found == documents
