"""Real text, where it lies: the folder ``multi30k`` below ``$FLAX_TRANSFORMER_DATA``."""

import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest

from flax_transformer.config import read_config_file
from flax_transformer.data.pipeline import make_training_batches
from flax_transformer.data.rows import tokenize_pairs
from flax_transformer.data.sources import load_sentence_pairs
from flax_transformer.data.tokenizer import TokenizerConfig, TranslationTokenizer, train_tokenizer
from flax_transformer.experiment.run import run_experiment

REPOSITORY = Path(__file__).parents[1]
FOLDER = Path(os.environ.get("FLAX_TRANSFORMER_DATA", "")) / "multi30k"

pytestmark = pytest.mark.skipif(
    "FLAX_TRANSFORMER_DATA" not in os.environ or not FOLDER.is_dir(),
    reason="needs the folder multi30k below $FLAX_TRANSFORMER_DATA",
)


@pytest.fixture(scope="module")
def config():
    return read_config_file(REPOSITORY / "configs" / "multi30k_en_de.py")


@pytest.fixture(scope="module")
def dev_pairs(config):
    return load_sentence_pairs(config.data, config.data.dev)


@pytest.fixture(scope="module")
def tokenizer(dev_pairs):
    return train_tokenizer(TokenizerConfig(vocab_size=2000), dev_pairs, seed=3)


def test_the_sets_are_read_whole(config, dev_pairs):
    for split, pairs in (
        (config.data.dev, dev_pairs),
        (config.data.test, load_sentence_pairs(config.data, config.data.test)),
    ):
        for side, language in enumerate((config.data.source_language, config.data.target_language)):
            text = (FOLDER / f"{split}.{language}").read_text(encoding="utf-8")
            assert [pair[side] for pair in pairs] == [line.strip() for line in text.splitlines()]


def test_every_sentence_comes_back_from_its_tokens(dev_pairs, tokenizer):
    for pair in dev_pairs:
        for text, one in zip(pair, (tokenizer.source, tokenizer.target), strict=True):
            assert one.decode(one.encode(text)) == text


def test_packed_rows_are_nearly_full_and_hold_every_pair_once(config, dev_pairs, tokenizer):
    pipeline = dataclasses.replace(config.pipeline, batch_tokens=640, max_length=64)
    batches = make_training_batches(dev_pairs, tokenizer, pipeline, seed=5)
    num_pairs, used, size = 0, 0, 0
    while num_pairs < len(dev_pairs):
        batch = next(batches)
        num_pairs += int(batch.source_segment_ids.max(axis=1).sum())
        used += int((batch.target_segment_ids != 0).sum())
        size += batch.target_segment_ids.size
    assert used / size > 0.85


@pytest.mark.slow
def test_a_short_training_learns_more_than_the_frequencies_of_tokens(config, dev_pairs, tmp_path):
    small = dataclasses.replace(
        config,
        model=dataclasses.replace(
            config.model, model_dim=64, num_encoder_layers=1, num_decoder_layers=1
        ),
        data=dataclasses.replace(config.data, train=config.data.dev, test=None),
        tokenizer=dataclasses.replace(config.tokenizer, vocab_size=1000),
        pipeline=dataclasses.replace(config.pipeline, batch_tokens=1024),
        optimizer=dataclasses.replace(config.optimizer, learning_rate=5e-3, warmup_steps=40),
        training=dataclasses.replace(
            config.training, num_steps=160, eval_every=160, checkpoint_every=160, log_every=20
        ),
        evaluation=dataclasses.replace(config.evaluation, max_length=16, test_beam_size=1),
    )
    assert run_experiment(small, tmp_path)
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    losses = [entry["nll"] for entry in map(json.loads, lines) if "nll" in entry]
    assert losses[-1] < 0.95 * token_entropy(tmp_path / "tokenizer", dev_pairs)


def token_entropy(directory, pairs):
    """Return the nats a target token costs if each is drawn by its frequency alone."""
    tokenizer = TranslationTokenizer.load(directory)
    counts = np.zeros(tokenizer.target.vocab_size)
    for pair in tokenize_pairs(pairs, tokenizer):
        np.add.at(counts, pair.labels, 1)
    shares = counts[counts > 0] / counts.sum()
    return -(shares * np.log(shares)).sum()
