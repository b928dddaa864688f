"""Translation of the sentences of one batch."""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flax_transformer.array_types import Bool, Int, Parameters
from flax_transformer.data.tokenizer import TranslationTokenizer
from flax_transformer.decoding.alignment import attend_to_source
from flax_transformer.decoding.generate import generate
from flax_transformer.decoding.hypotheses import Hypotheses
from flax_transformer.decoding.model_combinations import Combination
from flax_transformer.decoding.prepare import (
    DecodingModel,
    Precision,
    PreparedParameters,
    prepare_to_decode,
)
from flax_transformer.decoding.row_options import NO_TOKEN
from flax_transformer.decoding.strategies import Strategy, forced_first_id, limit_length
from flax_transformer.evaluation.alignment import Alignment, align_words, words_of_tokens
from flax_transformer.evaluation.batching import PlannedBatch, make_length_mask, pad_rows
from flax_transformer.evaluation.request_tokens import (
    encode_constraints,
    encode_text,
    pad_prefixes,
)
from flax_transformer.evaluation.translation import Request, Translation, read_hypotheses
from flax_transformer.models.encoder_decoder import EncoderDecoder
from flax_transformer.parallel.mesh import batch_sharding
from flax_transformer.parallel.processes import fetch, place_whole


class BatchTranslator(NamedTuple):
    """What all batches of a translation have in common.

    Attributes:
        models: prepared models, mostly a single one.
        params: their prepared parameters.
        tokenizer: the tokenizers of both languages.
        strategy: how to search.
        combine: how several models decode together.
        max_positions: those that all models have.
        limit_by_source: a line of S tokens gets ``2 S + 10`` at most.
        with_alignment: align the words of each translation to those of its line.
        mesh: devices that share the rows of each batch.
    """

    models: tuple[DecodingModel, ...]
    params: tuple[PreparedParameters, ...]
    tokenizer: TranslationTokenizer
    strategy: Strategy
    combine: Combination
    max_positions: int
    limit_by_source: bool
    with_alignment: bool
    mesh: Mesh | None

    def translate_batch(
        self,
        batch: PlannedBatch,
        rows: Sequence[Sequence[int]],
        requests: Sequence[Request],
        numbers: Sequence[int],
    ) -> list[list[Translation]]:
        """Return the translations of ``rows``, lines ``numbers``."""
        num_rows, length = batch.num_rows, batch.length
        source, target = self.tokenizer.source, self.tokenizer.target
        # Those that only fill the batch up are copies: they end when their original does.
        row_numbers = np.full(num_rows, numbers[0], np.int32)
        row_numbers[: len(numbers)] = numbers
        tokens = pad_rows(rows, num_rows=num_rows, length=length, pad_id=source.pad_id)
        mask = make_length_mask(rows, num_rows=num_rows, length=length)
        hypotheses = generate(
            self.models,
            self.params,
            tokens,
            strategy=limit_length(self.strategy, self._max_length(length)),
            mask=mask,
            prefixes=pad_prefixes(
                [self._encode_prefix(request.prefix) for request in requests], num_rows=num_rows
            ),
            constraints=encode_constraints(
                [request.constraints for request in requests], target, num_rows=num_rows
            ),
            row_numbers=row_numbers,
            combine=self.combine,
            sharding=None if self.mesh is None else batch_sharding(self.mesh),
            bos_id=target.bos_id,
            eos_id=target.eos_id,
            pad_id=target.pad_id,
        )
        hypotheses = fetch(hypotheses)
        alignments = None
        if self.with_alignment:
            alignments = self._align(tokens, mask, rows, hypotheses)
        # Without those that only fill the batch up.
        hypotheses = jax.tree.map(lambda field: field[: len(rows)], hypotheses)
        return list(read_hypotheses(hypotheses, target, alignments))

    def _max_length(self, source_length: int) -> int:
        """Return the tokens of an output at most for sources padded to so many.

        By the padded length, so that the limit costs no program of its own.
        """
        limits = self.strategy
        longest = min(limits.max_length, self.max_positions)
        if self.limit_by_source:
            ratio = max(limits.min_length_ratio or 0.0, limits.max_length_ratio or 0.0)
            of_source = max(2 * source_length + 10, math.ceil(ratio * source_length))
            longest = min(longest, of_source)
        return max(longest, limits.min_length)

    def _encode_prefix(self, text: str) -> list[int]:
        """Return the tokens of a prefix, behind the one that every output begins with."""
        tokens = encode_text(self.tokenizer.target, text)
        # A token that every output begins with is the strategy's to force, at no cost.
        is_forced = forced_first_id(self.strategy) is not None
        return [NO_TOKEN, *tokens] if tokens and is_forced else tokens

    def _align(
        self,
        source: Int[np.ndarray, "B S"],
        mask: Bool[np.ndarray, "B S"],
        rows: Sequence[Sequence[int]],
        hypotheses: Hypotheses,
    ) -> list[list[Alignment]]:
        """Return the alignments of the hypotheses of ``rows``."""
        num_best = hypotheses.tokens.shape[1]
        arrays = (
            source.repeat(num_best, axis=0),
            mask.repeat(num_best, axis=0),
            hypotheses.tokens.reshape(len(source) * num_best, -1),
        )
        if self.mesh is not None:
            place = functools.partial(place_whole, sharding=batch_sharding(self.mesh))
            arrays = jax.tree.map(place, arrays)
        bos_id, eos_id = self.tokenizer.target.bos_id, self.tokenizer.target.eos_id
        attention = fetch(attend_to_source(self.models[0], self.params[0], *arrays, bos_id))
        attention = attention.reshape(len(source), num_best, *attention.shape[1:])
        alignments: list[list[Alignment]] = []
        for row, ids in enumerate(rows):
            source_words = words_of_tokens(ids[:-1], self.tokenizer.source)
            of_row = []
            for rank in range(num_best):
                output = hypotheses.tokens[row, rank, : hypotheses.lengths[row, rank]].tolist()
                text = output[:-1] if output[-1:] == [eos_id] else output
                target_words = words_of_tokens(text, self.tokenizer.target)
                of_row.append(align_words(attention[row, rank], source_words, target_words))
            alignments.append(of_row)
        return alignments


def make_batch_translator(
    models: tuple[EncoderDecoder, ...],
    params: tuple[Parameters, ...],
    tokenizer: TranslationTokenizer,
    strategy: Strategy,
    *,
    combine: Combination,
    precision: Precision | None,
    limit_by_source: bool,
    with_alignment: bool,
    mesh: Mesh | None,
) -> BatchTranslator:
    """Prepare the models and parameters; arguments as for :func:`~.translate.translate`."""
    prepared = [
        prepare_to_decode(model, _place_parameters(of_model, mesh), precision=precision)
        for model, of_model in zip(models, params, strict=True)
    ]
    return BatchTranslator(
        tuple(model for model, _ in prepared),
        tuple(of_model for _, of_model in prepared),
        tokenizer,
        strategy,
        combine,
        min(model.config.max_positions for model in models),
        limit_by_source,
        with_alignment,
        mesh,
    )


def _place_parameters(params: Parameters, mesh: Mesh | None) -> Parameters:
    """Copy to every device of ``mesh`` what does not lie on all of them already."""
    if mesh is None:
        return jax.device_put(params)
    sharding = NamedSharding(mesh, PartitionSpec())
    devices = set(mesh.devices.flat)

    def place(leaf: jax.Array | np.ndarray) -> jax.Array:
        if isinstance(leaf, jax.Array) and leaf.sharding.device_set == devices:
            return leaf
        return place_whole(np.asarray(leaf), sharding)

    return jax.tree.map(place, params)
