"""Log-probabilities of translations that are already there."""

from collections.abc import Sequence

import jax
import numpy as np

from flax_transformer.array_types import Parameters
from flax_transformer.data.sentence_pair import clean_text
from flax_transformer.data.tokenizer import TranslationTokenizer
from flax_transformer.decoding.score import score
from flax_transformer.errors import InputError
from flax_transformer.evaluation.batching import (
    PlannedBatch,
    make_length_mask,
    pad_rows,
    plan_batches,
)
from flax_transformer.evaluation.sources import check_texts, encode_sources
from flax_transformer.evaluation.translate import ProgressFn
from flax_transformer.models.encoder_decoder import EncoderDecoder


def score_pairs(
    model: EncoderDecoder,
    params: Parameters,
    tokenizer: TranslationTokenizer,
    sources: Sequence[str],
    targets: Sequence[str],
    *,
    forced_first_id: int | None = None,
    batch_tokens: int = 4096,
    progress: ProgressFn | None = None,
) -> list[float]:
    """Return log P(target | source) of each pair: the natural logarithm, end token included.

    Tokens are those of the best segmentation of each target. A source that is too long is cut, and
    a warning names its number, counted from 1.

    Args:
        model: the model.
        params: its parameters.
        tokenizer: the tokenizers of both languages.
        sources: text, a sentence each.
        targets: a translation for each source.
        forced_first_id: token that every output of the model begins with; it counts as certain, as
            in a search that it is forced in.
        batch_tokens: positions of a batch at most, those of the longer side, padding included.
        progress: called after each batch.

    Raises:
        InputError: there are more sources than targets or fewer, one text is given in place of
            several, or a target is longer than the model can read: the score of a part would be
            taken for that of the whole.
    """
    check_texts(sources, "sources")
    check_texts(targets, "targets")
    if len(sources) != len(targets):
        raise InputError(
            f"sources and targets must be equally many, got {len(sources)} and {len(targets)}."
        )
    max_length = model.config.max_positions
    labels = _encode_targets(tokenizer, targets, forced_first_id, max_length)
    inputs = encode_sources(tokenizer.source, sources, max_length=max_length)
    params = jax.device_put(params)
    scores = [0.0] * len(sources)
    # One length for both sides, that of the longer: they are nearly equal in most pairs, and
    # there are few shapes.
    lengths = [max(map(len, pair)) for pair in zip(inputs, labels, strict=True)]
    for batch in plan_batches(lengths, batch_tokens=batch_tokens, max_length=max_length):
        sums = _score_batch(
            model,
            params,
            tokenizer,
            [inputs[index] for index in batch.indices],
            [labels[index] for index in batch.indices],
            batch,
            num_certain=0 if forced_first_id is None else 1,
        )
        for index, value in zip(batch.indices, sums, strict=False):
            scores[index] = value
        if progress is not None:
            progress(len(batch.indices))
    return scores


def _encode_targets(
    tokenizer: TranslationTokenizer,
    targets: Sequence[str],
    forced_first_id: int | None,
    max_length: int,
) -> list[list[int]]:
    labels = []
    first = () if forced_first_id is None else (forced_first_id,)
    encoded = tokenizer.target.encode_batch([clean_text(target) for target in targets])
    for number, ids in enumerate(encoded, start=1):
        tokens = [*first, *ids, tokenizer.target.eos_id]
        if len(tokens) > max_length:
            raise InputError(
                f"a target must be at most {max_length} tokens long to be scored, "
                f"got {len(tokens)} in line {number}."
            )
        labels.append(tokens)
    return labels


def _score_batch(
    model: EncoderDecoder,
    params: Parameters,
    tokenizer: TranslationTokenizer,
    inputs: Sequence[Sequence[int]],
    labels: Sequence[Sequence[int]],
    batch: PlannedBatch,
    *,
    num_certain: int,
) -> list[float]:
    """Return the sum over the labels of each row but the first ones, in double precision."""
    num_rows, length = batch.num_rows, batch.length
    target_pad_id = tokenizer.target.pad_id
    bos_id = tokenizer.target.bos_id
    log_probs = score(
        model,
        params,
        pad_rows(inputs, num_rows=num_rows, length=length, pad_id=tokenizer.source.pad_id),
        pad_rows(
            [[bos_id, *row[:-1]] for row in labels],
            num_rows=num_rows,
            length=length,
            pad_id=target_pad_id,
        ),
        pad_rows(labels, num_rows=num_rows, length=length, pad_id=target_pad_id),
        source_mask=make_length_mask(inputs, num_rows=num_rows, length=length),
        label_mask=make_length_mask(labels, num_rows=num_rows, length=length),
    )
    return np.asarray(log_probs, np.float64)[:, num_certain:].sum(axis=-1).tolist()
