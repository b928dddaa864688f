"""How fast the input pipeline alone makes batches, from text and from kept tokens.

    python benchmarks/pipeline.py [--pairs N] [--json] [--training-tokens-per-second T]

One process with the pipeline's default threads does nothing but take batches. Tokens are those of
source and target, without padding. Beside the wall time stands the processor time of the whole
process, which other work on the machine changes less, and which is what a training on the same
cores loses to the pipeline. The corpus is synthetic; where $FLAX_TRANSFORMER_DATA has Multi30k, its
training set is measured too.
"""

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grain
import numpy as np

from flax_transformer.data.batch import padding_fraction
from flax_transformer.data.parallel_text import read_parallel_text
from flax_transformer.data.pipeline import PipelineConfig, make_training_batches
from flax_transformer.data.sentence_pair import SentencePair
from flax_transformer.data.tokenizer import TokenizerConfig, TranslationTokenizer, train_tokenizer

VOCAB_SIZE = 8000
NUM_WORDS = 20_000
MEAN_SENTENCE_WORDS = 14


def main() -> None:
    """Measure every corpus, both ways to batch, from text and from kept tokens."""
    parser = argparse.ArgumentParser(description="Throughput of the input pipeline alone.")
    parser.add_argument("--pairs", type=int, default=50_000, help="size of the synthetic corpus")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement")
    parser.add_argument(
        "--training-tokens-per-second", type=float, metavar="T", help="speed to compare with"
    )
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    arguments = parser.parse_args()
    results = []
    for name, pairs in load_corpora(arguments.pairs).items():
        config = TokenizerConfig(vocab_size=VOCAB_SIZE, sample_size=30_000)
        tokenizer = train_tokenizer(config, pairs, seed=0)
        for batching in ("packed", "bucketed"):
            pipeline = PipelineConfig(batching=batching)
            results += [
                {"corpus": name, "batching": batching, **each}
                for each in measure(pairs, tokenizer, pipeline, arguments.seconds)
            ]
    if training := arguments.training_tokens_per_second:
        results = [
            {**each, "times_training": each["tokens_per_second"] / training} for each in results
        ]
    print(json.dumps(results, indent=2) if arguments.json else format_table(results), flush=True)


def load_corpora(num_pairs: int) -> dict[str, Sequence[SentencePair]]:
    """Return the corpora by name."""
    corpora: dict[str, Sequence[SentencePair]] = {"synthetic": make_pairs(num_pairs)}
    directory = Path(os.environ.get("FLAX_TRANSFORMER_DATA", "")) / "multi30k"
    if directory.is_dir():
        corpora["multi30k"] = read_parallel_text(directory, "train", "en", "de")
    return corpora


def make_pairs(num_pairs: int) -> list[SentencePair]:
    """Return pairs of random words, whose frequencies fall as those of a language (Zipf's law)."""
    rng = np.random.default_rng(0)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    words = np.array(["".join(rng.choice(letters, size)) for size in rng.integers(2, 9, NUM_WORDS)])
    frequencies = 1.0 / np.arange(1, NUM_WORDS + 1)
    lengths = rng.poisson(MEAN_SENTENCE_WORDS - 1, (num_pairs, 2)) + 1
    drawn = rng.choice(words, lengths.sum(), p=frequencies / frequencies.sum())
    ends = np.cumsum(lengths.ravel())[:-1]
    sides = [" ".join(side.tolist()) for side in np.split(drawn, ends)]
    return [SentencePair(*pair) for pair in zip(sides[::2], sides[1::2], strict=True)]


def measure(
    pairs: Sequence[SentencePair],
    tokenizer: TranslationTokenizer,
    config: PipelineConfig,
    seconds: float,
) -> list[dict[str, Any]]:
    """Return the speeds from text, and from tokens that are made and then found again."""

    def make(cache_directory: Path | None) -> tuple[grain.DatasetIterator, float]:
        start = time.perf_counter()
        batches = make_training_batches(
            pairs, tokenizer, config, seed=0, cache_directory=cache_directory
        )
        return batches, time.perf_counter() - start

    with tempfile.TemporaryDirectory() as directory:
        batches, start_seconds = make(None)
        from_text = {"tokens": "from text", "start_seconds": start_seconds}
        from_text |= take_batches(batches, seconds)
        _, make_seconds = make(Path(directory))
        batches, start_seconds = make(Path(directory))
        kept = {"tokens": "kept", "start_seconds": start_seconds, "make_seconds": make_seconds}
        kept |= take_batches(batches, seconds)
    return [from_text, kept]


def take_batches(batches: grain.DatasetIterator, seconds: float) -> dict[str, float]:
    """Take batches for a while; return the speeds and the share of padding."""
    next(batches)
    start, cpu_start = time.perf_counter(), time.process_time()
    num_tokens, padding = 0, []
    while time.perf_counter() - start < seconds:
        batch = next(batches)
        num_tokens += int(np.count_nonzero(batch.source_segment_ids))
        num_tokens += int(np.count_nonzero(batch.target_segment_ids))
        padding.append(padding_fraction(batch))
    wall_time, cpu_time = time.perf_counter() - start, time.process_time() - cpu_start
    batches.close()
    return {
        "tokens_per_second": num_tokens / wall_time,
        "tokens_per_cpu_second": num_tokens / cpu_time,
        "padding": float(np.mean(padding)),
    }


def format_table(results: list[dict[str, Any]]) -> str:
    """Return a Markdown table, a line for each measurement."""
    columns = {
        "corpus": "{}",
        "batching": "{}",
        "tokens": "{}",
        "tokens_per_second": "{:,.0f}",
        "tokens_per_cpu_second": "{:,.0f}",
        "times_training": "{:.1f}",
        "padding": "{:.1%}",
        "start_seconds": "{:.2f}",
        "make_seconds": "{:.2f}",
    }
    shown = [name for name in columns if any(name in each for each in results)]
    lines = [f"| {' | '.join(name.replace('_', ' ') for name in shown)} |"]
    lines.append("|---|---|---|" + "---:|" * (len(shown) - 3))
    for each in results:
        cells = [columns[name].format(each[name]) if name in each else "" for name in shown]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
