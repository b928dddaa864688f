"""A tiny corpus and its batches, which the tests of the data pipeline share."""

from collections.abc import Sequence
from typing import Any

import grain
import numpy as np

from flax_transformer.data.batch import Batch, TextBatch
from flax_transformer.data.pipeline import PipelineConfig, make_training_batches
from flax_transformer.data.sentence_pair import SentencePair
from flax_transformer.data.sentencepiece_model import Tokenizer
from flax_transformer.data.tokenizer import TokenizerConfig, TranslationTokenizer, train_tokenizer

NUM_PAIRS = 61


def make_pairs(count: int) -> list[SentencePair]:
    """Pairs that are told apart by their number, of lengths that vary much."""
    rng = np.random.default_rng(0)
    return [
        SentencePair(
            f"pair {n}" + " of few words" * int(rng.integers(3)),
            f"par {n}" + " de poucas palavras" * int(rng.integers(3)),
        )
        for n in range(count)
    ]


PAIRS = make_pairs(NUM_PAIRS)
TOKENIZER = train_tokenizer(TokenizerConfig(vocab_size=300), PAIRS, seed=0)
RANDOM_TOKENIZER = TranslationTokenizer(*[Tokenizer(TOKENIZER.source.model, 0.2)] * 2)


def make_config(batching: Any, **changes: Any) -> PipelineConfig:
    # The window is no divisor of the corpus: windows lie across the ends of the epochs.
    defaults = {"batch_tokens": 160, "max_length": 40, "window_size": 17}
    return PipelineConfig(batching=batching, **{**defaults, **changes})


def make_batches(
    batching: str,
    *,
    pairs: Sequence[SentencePair] = PAIRS,
    tokenizer: TranslationTokenizer = TOKENIZER,
    seed: int = 0,
    config: PipelineConfig | None = None,
    **arguments: Any,
) -> grain.DatasetIterator:
    config = config or make_config(batching)
    return make_training_batches(pairs, tokenizer, config, seed=seed, **arguments)


def targets_as_text(batch: Batch) -> TextBatch:
    """Return the target sides of pairs as a decoder without an encoder reads them."""
    return TextBatch(
        tokens=batch.target,
        segment_ids=batch.target_segment_ids,
        positions=batch.target_positions,
        labels=batch.labels,
        is_predicted=(batch.target_segment_ids > 0).astype(np.int32),
        pair_ids=batch.pair_ids,
    )


def assert_same(one: Sequence[Batch], other: Sequence[Batch]) -> None:
    assert len(one) == len(other)
    for ours, theirs in zip(one, other, strict=True):
        for array, expected in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(array, expected)
