"""The training pipelines of texts: as :mod:`.pipeline` for sentence pairs, with its promises.

Batches are determined by the arguments, an epoch has everything once, in an order of its own, and
positions in the stream can be saved and restored.
"""

import logging
import math
from collections.abc import Sequence

import grain

from flax_transformer.data.corpus import spread_indices
from flax_transformer.data.fingerprint import FingerprintedDataset, digest_texts
from flax_transformer.data.pipeline import (
    PipelineConfig,
    bucketed_streams,
    check_parts,
    describe_stream,
    make_shapes,
    packed_streams,
)
from flax_transformer.data.text_pieces import TextPieces, encode_documents
from flax_transformer.data.text_windows import BucketedTexts, Masking, PackedPieces
from flax_transformer.data.texts import LabelledText
from flax_transformer.data.tokenizer import TranslationTokenizer
from flax_transformer.errors import InputError

_LOGGER = logging.getLogger(__name__)
_SAMPLE_SIZE = 50_000


def make_text_batches(
    documents: Sequence[str],
    tokenizer: TranslationTokenizer,
    config: PipelineConfig,
    *,
    joined: bool,
    is_masked: bool,
    seed: int,
    part_index: int = 0,
    part_count: int = 1,
    row_multiple: int = 1,
) -> grain.DatasetIterator:
    """Return an endless iterator over :class:`TextBatch` for a language model.

    Args:
        documents: running text. It is tokenised at once, and held in memory.
        tokenizer: of one language, without subword regularisation.
        config: rows are always packed.
        joined: let documents follow one another in a row as one text; otherwise none sees another.
        is_masked: for a masked language model; the tokens to predict are drawn anew every epoch.
        seed: of the order, and of the tokens to predict.
        part_index: as for :func:`.pipeline.make_training_batches`, as are those that follow.
        part_count: parts of the global batch.
        row_multiple: the rows of the global batch are a multiple of it.

    Raises:
        InputError: the rows cannot be shared out, or the config is not for running text.
    """
    shapes = make_shapes(config, math.lcm(row_multiple, config.num_streams))
    check_parts(shapes, part_count)
    make_rows = prepare_pieces(documents, tokenizer, config, joined=joined, is_masked=is_masked)
    streams = packed_streams(
        make_rows,
        num_items=len(make_rows.pieces),
        num_rows=shapes[0].num_rows,
        config=config,
        seed=seed,
        part_index=part_index,
        part_count=part_count,
    )
    fingerprint = {
        "texts": digest_texts(documents),
        "join_documents": str(joined),
        "masking": str(make_rows.masking),
    } | describe_stream(tokenizer, config, shapes, seed)
    fingerprint["pieces"] = make_rows.pieces.digest()  # last: the others say better what differs
    return iter(FingerprintedDataset(streams, fingerprint))


def prepare_pieces(
    documents: Sequence[str],
    tokenizer: TranslationTokenizer,
    config: PipelineConfig,
    *,
    joined: bool,
    is_masked: bool,
) -> PackedPieces:
    """Tokenise documents; return what packs their pieces into rows. Arguments as above."""
    side = tokenizer.source
    if config.batching != "packed":
        raise InputError(
            f"pipeline.batching must be packed for running text, got {config.batching}."
        )
    if side.subword_regularization:
        raise InputError(
            "tokenizer.subword_regularization must be 0 for running text, got "
            f"{side.subword_regularization}."
        )
    if config.max_length < 3:
        raise InputError(f"pipeline.max_length must be at least 3, got {config.max_length}.")
    pieces = TextPieces(
        encode_documents(side, documents, joined=joined),
        length=config.max_length,
        bos_id=side.bos_id,
        is_masked=is_masked,
    )
    masking = None
    if is_masked:  # only then must there be a mask token
        masking = Masking(
            rate=config.mask_rate,
            mask_id=side.mask_id,
            vocab_size=side.vocab_size,
            special_ids=(side.pad_id, side.bos_id, side.eos_id),
        )
    return PackedPieces(
        pieces=pieces,
        row_length=config.max_length,
        pad_id=side.pad_id,
        masking=masking,
    )


def make_labelled_batches(
    texts: Sequence[LabelledText],
    tokenizer: TranslationTokenizer,
    config: PipelineConfig,
    *,
    seed: int,
    part_index: int = 0,
    part_count: int = 1,
    row_multiple: int = 1,
) -> grain.DatasetIterator:
    """Return an endless iterator over :class:`LabelledBatch`; arguments as above.

    Rows hold one text each, in length buckets. Texts of more than ``config.max_length`` tokens, the
    start and the end token included, are dropped or cut (``config.long_pairs``).

    Raises:
        InputError: the rows cannot be shared out, no text is short enough, or the config is not for
            one text a row.
    """
    if config.batching != "bucketed":
        raise InputError(
            "pipeline.batching must be bucketed for texts with a class, which is of a row, got "
            f"{config.batching}."
        )
    shapes = make_shapes(config, row_multiple)
    check_parts(shapes, part_count)
    _check_lengths(texts, tokenizer, config)
    make_batches = BucketedTexts(
        texts=texts,
        tokenizer=tokenizer.source,
        max_length=config.max_length,
        long_texts=config.long_pairs,
        buckets=shapes,
        part_index=part_index,
        part_count=part_count,
    )
    streams = bucketed_streams(make_batches, num_items=len(texts), config=config, seed=seed)
    fingerprint = {"texts": digest_texts(texts)} | describe_stream(tokenizer, config, shapes, seed)
    return iter(FingerprintedDataset(streams, fingerprint))


def _check_lengths(
    texts: Sequence[LabelledText], tokenizer: TranslationTokenizer, config: PipelineConfig
) -> None:
    """Refuse texts that are all too long, and warn of those that are left out or cut."""
    sample = [texts[index].text for index in spread_indices(len(texts), _SAMPLE_SIZE)]
    encoded = tokenizer.source.encode_batch(sample)
    num_long = sum(len(ids) + 2 > config.max_length for ids in encoded)
    if num_long == len(sample) and config.long_pairs == "drop":
        raise InputError(
            f"texts must have at most pipeline.max_length ({config.max_length}) tokens, got "
            f"{num_long} that are all longer. Raise it, or set pipeline.long_pairs to cut."
        )
    if num_long:
        _LOGGER.warning(
            "Of %d training texts examined, %d have more than %d tokens and are %s.",
            len(sample),
            num_long,
            config.max_length,
            {"drop": "dropped", "cut": "cut"}[config.long_pairs],
        )
