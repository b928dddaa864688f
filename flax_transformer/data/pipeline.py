"""The training pipeline: sentence pairs in, an endless stream of batches out, by Grain.

The stream of pairs (shuffled anew every epoch) is cut into windows of many pairs. A window is
tokenised and packed, or sorted into length buckets, as a whole, in a background thread. What comes
out of a window is a pure function of its number and the seed, so a position in the stream is two
numbers, the window and the row or batch in it, and resuming is exact.
"""

import logging
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import grain
import numpy as np

from flax_transformer.data.batch import Batch
from flax_transformer.data.bucketing import Bucket, count_rows, make_buckets
from flax_transformer.data.fingerprint import (
    FingerprintedDataset,
    digest_pairs,
    digest_tokenizer,
    spread_evenly,
)
from flax_transformer.data.rows import is_empty, longer_side, tokenize_pairs
from flax_transformer.data.sentence_pair import SentencePair
from flax_transformer.data.tokenizer import TranslationTokenizer
from flax_transformer.data.windows import (
    BucketedWindow,
    PackedWindow,
    PairPreparation,
    stack_rows,
)
from flax_transformer.errors import InputError

_LOGGER = logging.getLogger(__name__)
_SUMMARY_SIZE = 50_000


@dataclass(frozen=True, kw_only=True)
class PipelineConfig:
    """How sentence pairs become batches.

    ``batch_tokens`` is the number of target positions of one global batch, at most. ``max_length``
    is the length of a row (packed) or of the longest rows (bucketed), end token included; pairs
    with a longer side are dropped or cut (``long_pairs``). ``window_size`` is the number of pairs
    that are packed or sorted together: more means less padding and more memory. ``bucket_growth``
    is the ratio of the row lengths of neighbouring buckets; every length is one more compilation.
    ``num_threads`` prepare windows in the background.
    """

    batching: Literal["packed", "bucketed"] = "packed"
    batch_tokens: int = 4096
    max_length: int = 128
    long_pairs: Literal["drop", "cut"] = "drop"
    window_size: int = 8192
    bucket_growth: float = 1.25
    num_threads: int = 1

    def __post_init__(self) -> None:
        if self.batching not in ("packed", "bucketed"):
            raise InputError(f"batching must be 'packed' or 'bucketed', got {self.batching!r}.")
        if self.long_pairs not in ("drop", "cut"):
            raise InputError(f"long_pairs must be 'drop' or 'cut', got {self.long_pairs!r}.")
        for name in ("batch_tokens", "window_size", "num_threads"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if not 1.0 < self.bucket_growth < math.inf:
            raise InputError(
                f"bucket_growth must be a finite number above 1, got {self.bucket_growth}."
            )
        if self.max_length < 2:
            raise InputError(
                f"max_length must be at least 2 (a token and the end token), got {self.max_length}."
            )
        if self.batch_tokens < self.max_length:
            raise InputError(
                f"batch_tokens must be at least max_length ({self.max_length}), "
                f"got {self.batch_tokens}."
            )


class CorpusSummary(NamedTuple):
    """How many of ``num_pairs`` pairs the pipeline finds empty or too long."""

    num_pairs: int
    num_empty: int
    num_long: int


def summarize_corpus(
    pairs: Sequence[SentencePair], tokenizer: TranslationTokenizer, config: PipelineConfig
) -> CorpusSummary:
    """Count the empty and the over-long pairs, in a large corpus among 50,000 spread evenly."""
    sample = spread_evenly(pairs, _SUMMARY_SIZE)
    filled = [pair for pair in sample if not is_empty(pair)]
    lengths = map(longer_side, tokenize_pairs(filled, tokenizer))
    num_long = sum(length > config.max_length for length in lengths)
    return CorpusSummary(len(sample), len(sample) - len(filled), num_long)


def make_training_batches(
    pairs: Sequence[SentencePair],
    tokenizer: TranslationTokenizer,
    config: PipelineConfig,
    *,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    row_multiple: int = 1,
) -> grain.DatasetIterator:
    """Return an endless iterator over :class:`Batch`, determined by the arguments.

    Each epoch has every usable pair once, in an order of its own. The number of rows of the global
    batch is a multiple of ``row_multiple`` and of ``process_count``; this process gets its equal
    share of them. Text is segmented at random when the tokenizer has subword regularisation.
    ``get_state`` and ``set_state`` (or ``grain.checkpoint``) save and restore the exact position;
    a position in another stream raises InputError (only ``num_threads`` may change, and
    ``row_multiple`` if the shapes stay).

    Raises:
        InputError: no pair can be used, or ``batch_tokens`` is too small for ``row_multiple`` rows.
    """
    if not 0 <= seed < 2**32:
        raise InputError(f"seed must be from 0 to 2**32 - 1, got {seed}.")
    _check_corpus(summarize_corpus(pairs, tokenizer, config), config)
    shapes = make_shapes(config, math.lcm(row_multiple, process_count))
    prepare = PairPreparation(
        tokenizer=tokenizer, max_length=config.max_length, long_pairs=config.long_pairs
    )
    stream = grain.MapDataset.source(pairs).seed(seed).shuffle().repeat()
    if config.batching == "packed":
        # All batches have the same shape, so each process can pack a part of the stream.
        part = stream[process_index::process_count]
        # A window is no larger than an epoch, lest the rows of a small corpus repeat a pair.
        window_size = min(config.window_size, math.ceil(len(pairs) / process_count))
        packed = PackedWindow(prepare=prepare)
        rows = _unfold_windows(part, window_size, packed, (seed, process_index), config.num_threads)
        num_rows = shapes[0].num_rows // process_count
        batches = rows.batch(num_rows, drop_remainder=True, batch_fn=stack_rows)
    else:
        # The processes must agree on the shape at every step, so each follows the whole stream and
        # keeps its rows of every batch.
        window_size = min(config.window_size, len(pairs))
        bucketed = BucketedWindow(
            prepare=prepare,
            buckets=shapes,
            process_index=process_index,
            process_count=process_count,
        )
        batches = _unfold_windows(stream, window_size, bucketed, (seed, 0), config.num_threads)
    shape_names = ", ".join(f"{shape.num_rows}x{shape.row_length}" for shape in shapes)
    fingerprint = {
        "pairs": digest_pairs(pairs),
        "tokenizer": digest_tokenizer(tokenizer),
        "seed": str(seed),
        "batching": config.batching,
        "batch shapes (of batch_tokens, max_length, devices)": shape_names,
        "long_pairs": config.long_pairs,
        "window_size": str(config.window_size),
        "process_count": str(process_count),
    }
    return iter(FingerprintedDataset(batches, fingerprint))


def make_shapes(config: PipelineConfig, row_multiple: int) -> list[Bucket]:
    """Return the shapes of the global batches: one if packed, one for each bucket otherwise.

    Raises:
        InputError: ``config.batch_tokens`` is too small for ``row_multiple`` rows.

    >>> make_shapes(PipelineConfig(batch_tokens=100, max_length=30), row_multiple=1)
    [Bucket(num_rows=3, row_length=30)]
    """
    if config.batching == "packed":
        num_rows = count_rows(config.batch_tokens, config.max_length, row_multiple)
        return [Bucket(num_rows, config.max_length)]
    return make_buckets(
        config.batch_tokens,
        config.max_length,
        growth=config.bucket_growth,
        row_multiple=row_multiple,
    )


class _Unfold(grain.experimental.FlatMapTransform):
    """Yield the items of a list one by one."""

    max_fan_out = sys.maxsize

    def flat_map(self, element: list[Batch]) -> list[Batch]:
        return element


def _unfold_windows(
    stream: grain.MapDataset,
    window_size: int,
    make_items: Callable[[Sequence[SentencePair], np.random.Generator], list[Batch]],
    seed: tuple[int, ...],
    num_threads: int,
) -> grain.IterDataset:
    """Cut ``stream`` into windows, prepare them in background threads, and yield their items."""
    window_seed = int(np.random.SeedSequence(seed).generate_state(1)[0])
    windows = stream.batch(window_size, batch_fn=list).random_map(make_items, seed=window_seed)
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=num_threads + 1)
    return grain.experimental.FlatMapIterDataset(windows.to_iter_dataset(options), _Unfold())


def _check_corpus(summary: CorpusSummary, config: PipelineConfig) -> None:
    """Refuse a corpus that gives no batch, and warn of pairs that are left out or cut."""
    num_pairs, num_empty, num_long = summary
    num_usable = num_pairs - num_empty - (num_long if config.long_pairs == "drop" else 0)
    if num_usable == 0:
        raise InputError(
            f"pairs must hold text of at most max_length ({config.max_length}) tokens, got "
            f"{num_pairs} pairs, {num_empty} with an empty side and {num_long} too long."
        )
    if num_empty or num_long:
        _LOGGER.warning(
            "Of %d training pairs examined, %d have an empty side and are dropped; %d have more "
            "than %d tokens on a side and are %s.",
            num_pairs,
            num_empty,
            num_long,
            config.max_length,
            {"drop": "dropped", "cut": "cut"}[config.long_pairs],
        )
