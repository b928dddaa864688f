"""The strategies by which a model can decode, and the search that each of them stands for."""

import dataclasses
from typing import TypeAlias, TypeVar

from flax_transformer.array_types import Array, Float, Int, Key
from flax_transformer.decoding.beam_search import make_beam_search
from flax_transformer.decoding.beam_state import NO_INPUTS, BeamInputs
from flax_transformer.decoding.beam_strategy import BeamSearch
from flax_transformer.decoding.forced_token import ForcedToken
from flax_transformer.decoding.greedy import Greedy, make_greedy
from flax_transformer.decoding.logits_processors import LogitsProcessor
from flax_transformer.decoding.sampling import Sampling, make_sampling
from flax_transformer.decoding.search import Search
from flax_transformer.errors import InputError
from flax_transformer.models.decoder_cache import DecoderCache, reorder_cache

Strategy: TypeAlias = Greedy | Sampling | BeamSearch

AnyStrategy = TypeVar("AnyStrategy", Greedy, Sampling, Greedy | Sampling, Strategy)
"""What :func:`limit_length` leaves of its kind."""


def make_search(
    strategy: Strategy,
    *,
    eos_id: int,
    pad_id: int,
    inputs: BeamInputs = NO_INPUTS,
    row_keys: Key[Array, " B"] | None = None,
) -> Search:
    """Return the search over the steps of models, whose cache is the tuple of theirs.

    Args:
        strategy: how to search.
        eos_id: token that ends an output.
        pad_id: fills the outputs after their end.
        inputs: what each row asks for; only ``start`` reads it.
        row_keys: a random key for each row, for :class:`Sampling`; only ``start`` reads it.

    Raises:
        InputError: there are constraints, and no beam to find them.
    """
    if isinstance(strategy, BeamSearch):
        return make_beam_search(
            strategy,
            _reorder_caches,
            eos_id=eos_id,
            pad_id=pad_id,
            inputs=inputs,
            attention_fn=_read_cross_weights if needs_attention(strategy) else None,
        )
    if inputs.constraints is not None:
        raise InputError("constraints must be given with BeamSearch alone.")
    if isinstance(strategy, Sampling):
        return make_sampling(
            strategy, eos_id=eos_id, pad_id=pad_id, row_keys=row_keys, rows=inputs.options
        )
    return make_greedy(strategy, eos_id=eos_id, pad_id=pad_id, rows=inputs.options)


def limit_length(strategy: AnyStrategy, max_length: int) -> AnyStrategy:
    """Return the strategy with another ``max_length``; what is forced at the last place stays so.

    >>> limit_length(Greedy(max_length=9, processors=(ForcedToken(2, place=8),)), 5).processors
    (ForcedToken(token_id=2, place=4),)
    """

    def move(processor: LogitsProcessor) -> LogitsProcessor:
        if isinstance(processor, ForcedToken) and processor.place == strategy.max_length - 1:
            return dataclasses.replace(processor, place=max_length - 1)
        return processor

    return dataclasses.replace(
        strategy,
        max_length=max_length,
        min_length=min(strategy.min_length, max_length),
        processors=tuple(map(move, strategy.processors)),
    )


def forced_first_id(strategy: Strategy) -> int | None:
    """Return the token that a processor puts at the beginning of every output, or None.

    >>> forced_first_id(Greedy(processors=(ForcedToken(2, place=0),)))
    2
    """
    for processor in reversed(strategy.processors):
        if isinstance(processor, ForcedToken) and processor.place == 0:
            return processor.token_id
    return None


def num_hypotheses(strategy: Strategy) -> int:
    """Return how many hypotheses of a row the step function continues at once.

    >>> num_hypotheses(Sampling(num_samples=3))
    3
    """
    match strategy:
        case BeamSearch():
            return strategy.beam_size
        case Sampling():
            return strategy.num_samples
        case Greedy():
            return 1


def reorders_hypotheses(strategy: Strategy) -> bool:
    """Tell whether one hypothesis of a row may take the place of another."""
    return isinstance(strategy, BeamSearch) and strategy.beam_size > 1


def needs_attention(strategy: Strategy) -> bool:
    """Tell whether the search reads the attention to the source."""
    return isinstance(strategy, BeamSearch) and strategy.coverage_penalty > 0.0


def _reorder_caches(
    caches: tuple[DecoderCache, ...], parents: Int[Array, "B W"]
) -> tuple[DecoderCache, ...]:
    return tuple(reorder_cache(cache, parents) for cache in caches)


def _read_cross_weights(caches: tuple[DecoderCache, ...]) -> Float[Array, "B W S"]:
    cross_weights = caches[0].cross_weights
    if cross_weights is None:
        raise InputError("coverage_penalty must be 0 for a model without an encoder.")
    return cross_weights
