"""The training pipeline: sentence pairs in, an endless stream of batches out, by Grain.

The stream of pairs (shuffled anew every epoch) is cut into windows of many pairs. The tokens of a
window are packed, or sorted into length buckets, as a whole, in a background thread. What comes out
of a window is a pure function of its number and the seed, so a position in the stream is two
numbers, the window and the row or batch in it, and resuming is exact. Packed batches may be made of
several such streams, which many processes share out among themselves.
"""

import functools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import grain

from flax_transformer.data.bucketing import Bucket, count_rows, make_buckets
from flax_transformer.data.corpus import spread_indices
from flax_transformer.data.fingerprint import (
    FingerprintedDataset,
    digest_pairs,
    digest_tokenizer,
)
from flax_transformer.data.rows import longer_side, special_tokens
from flax_transformer.data.sentence_pair import SentencePair
from flax_transformer.data.streams import JoinedStreams, MakeItems, find_streams, unfold_stream
from flax_transformer.data.token_cache import keep_tokens
from flax_transformer.data.tokenizer import TranslationTokenizer
from flax_transformer.data.tokens import ReadTokens, TextTokens
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
    ``num_threads`` prepare the windows of each stream in the background.

    Of other texts than pairs, running text is packed (long documents are cut into pieces, none is
    dropped) and texts with a class are bucketed. ``mask_rate`` is the share of the tokens that a
    masked language model predicts.

    ``num_streams`` (packed only) is the number of parts in which the pairs are read and packed side
    by side. With a multiple of the number of processes, each process reads its own part of the
    data; otherwise some read more than they keep. The batches depend on it, so it stays what it is
    when a run goes on with more processes or fewer.
    """

    batching: Literal["packed", "bucketed"] = "packed"
    batch_tokens: int = 4096
    max_length: int = 128
    long_pairs: Literal["drop", "cut"] = "drop"
    window_size: int = 8192
    bucket_growth: float = 1.25
    num_threads: int = 1
    num_streams: int = 1
    mask_rate: float = 0.15

    def __post_init__(self) -> None:
        if self.batching not in ("packed", "bucketed"):
            raise InputError(f"batching must be 'packed' or 'bucketed', got {self.batching!r}.")
        if self.long_pairs not in ("drop", "cut"):
            raise InputError(f"long_pairs must be 'drop' or 'cut', got {self.long_pairs!r}.")
        for name in ("batch_tokens", "window_size", "num_threads", "num_streams"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}.")
        if self.num_streams > 1 and self.batching == "bucketed":
            raise InputError(
                f"num_streams must be 1 with batching 'bucketed', got {self.num_streams}."
            )
        if not 1.0 < self.bucket_growth < math.inf:
            raise InputError(
                f"bucket_growth must be a finite number above 1, got {self.bucket_growth}."
            )
        if not 0.0 < self.mask_rate <= 1.0:
            raise InputError(f"mask_rate must be above 0 and at most 1, got {self.mask_rate}.")
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
    read_tokens: ReadTokens, num_pairs: int, config: PipelineConfig
) -> CorpusSummary:
    """Count the empty and the over-long pairs, in a large corpus among 50,000 spread evenly."""
    sample = spread_indices(num_pairs, _SUMMARY_SIZE)
    filled = read_tokens(sample, None)
    num_long = sum(longer_side(pair) > config.max_length for pair in filled)
    return CorpusSummary(len(sample), len(sample) - len(filled), num_long)


def make_training_batches(
    pairs: Sequence[SentencePair],
    tokenizer: TranslationTokenizer,
    config: PipelineConfig,
    *,
    seed: int,
    part_index: int = 0,
    part_count: int = 1,
    row_multiple: int = 1,
    cache_directory: Path | None = None,
) -> grain.DatasetIterator:
    """Return an endless iterator over :class:`Batch`, determined by the arguments.

    Each epoch has every usable pair once, in an order of its own. The number of rows of the global
    batch is a multiple of ``row_multiple`` and of ``config.num_streams``; of ``part_count`` equal
    blocks of them the iterator gives number ``part_index``. The global batches do not depend on
    ``part_count``. Text is segmented at random when the tokenizer has subword regularisation; when
    it has not, it is tokenised once and the tokens are kept in ``cache_directory``, on which the
    batches do not depend. Of several processes all must pass the same directory, which they share.

    ``get_state`` and ``set_state`` (or ``grain.checkpoint``) save and restore the exact position;
    a position in another stream raises InputError (only ``num_threads`` may change, and
    ``row_multiple`` if the shapes stay). With another ``part_count``, ``set_state`` needs the union
    of the entries ``position`` that all parts have saved.

    Raises:
        InputError: no pair can be used, a pair is damaged, or the rows that ``batch_tokens`` allows
            cannot be shared out. While iterating: a pair is damaged, or no pair comes any more.
    """
    if not 0 <= seed < 2**32:
        raise InputError(f"seed must be from 0 to 2**32 - 1, got {seed}.")
    shapes = make_shapes(config, math.lcm(row_multiple, config.num_streams))
    check_parts(shapes, part_count)
    text = TextTokens(pairs=pairs, tokenizer=tokenizer)
    read_tokens: ReadTokens = text
    if cache_directory is not None and not text.is_random:
        read_tokens = keep_tokens(text, cache_directory)
    _check_corpus(summarize_corpus(read_tokens, len(pairs), config), config)
    prepare = PairPreparation(
        read_tokens=read_tokens,
        special=special_tokens(tokenizer),
        max_length=config.max_length,
        long_pairs=config.long_pairs,
    )
    if config.batching == "packed":
        streams = packed_streams(
            PackedWindow(prepare=prepare),
            num_items=len(pairs),
            num_rows=shapes[0].num_rows,
            config=config,
            seed=seed,
            part_index=part_index,
            part_count=part_count,
        )
    else:
        # All parts must agree on the shape at every step, so each follows the one stream.
        bucketed = BucketedWindow(
            prepare=prepare, buckets=shapes, part_index=part_index, part_count=part_count
        )
        streams = bucketed_streams(bucketed, num_items=len(pairs), config=config, seed=seed)
    fingerprint = {"pairs": digest_pairs(pairs)} | describe_stream(tokenizer, config, shapes, seed)
    return iter(FingerprintedDataset(streams, fingerprint))


def packed_streams(
    make_rows: MakeItems,
    *,
    num_items: int,
    num_rows: int,
    config: PipelineConfig,
    seed: int,
    part_index: int,
    part_count: int,
) -> JoinedStreams:
    """Return one part of batches of ``num_rows`` of the rows that ``make_rows`` makes of windows.

    See :func:`make_training_batches`; a window is one of ``num_items`` indices.
    """
    parts = find_streams(num_rows, config.num_streams, part_index=part_index, part_count=part_count)
    return JoinedStreams(
        {
            stream: _unfold(make_rows, stream, num_items, config, seed).batch(
                num_rows // config.num_streams,
                drop_remainder=True,
                batch_fn=functools.partial(stack_rows, kept=kept),
            )
            for stream, kept in parts.items()
        }
    )


def bucketed_streams(
    make_batches: MakeItems, *, num_items: int, config: PipelineConfig, seed: int
) -> JoinedStreams:
    """Return the batches that ``make_batches`` makes of windows of ``num_items`` indices."""
    return JoinedStreams({0: _unfold(make_batches, 0, num_items, config, seed)})


def _unfold(
    make_items: MakeItems, stream: int, num_items: int, config: PipelineConfig, seed: int
) -> grain.IterDataset:
    return unfold_stream(
        make_items,
        stream,
        num_streams=config.num_streams,
        num_pairs=num_items,
        window_size=config.window_size,
        seed=seed,
        num_threads=config.num_threads,
    )


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


def describe_stream(
    tokenizer: TranslationTokenizer, config: PipelineConfig, shapes: Sequence[Bucket], seed: int
) -> dict[str, str]:
    """Return all that batches depend on beside the texts, by name."""
    shape_names = ", ".join(f"{shape.num_rows}x{shape.row_length}" for shape in shapes)
    return {
        "tokenizer": digest_tokenizer(tokenizer),
        "seed": str(seed),
        "batching": config.batching,
        "batch shapes (of batch_tokens, max_length, devices)": shape_names,
        "long_pairs": config.long_pairs,
        "window_size": str(config.window_size),
        "num_streams": str(config.num_streams),
    }


def check_parts(shapes: Sequence[Bucket], part_count: int) -> None:
    """Raise InputError if batches of these shapes cannot be cut into ``part_count`` parts."""
    for num_rows, row_length in shapes:
        if num_rows % part_count:
            raise InputError(
                f"row_multiple must be a multiple of part_count ({part_count}), or batch_tokens "
                f"such that the parts are equal, got {num_rows} rows of {row_length} tokens."
            )


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
