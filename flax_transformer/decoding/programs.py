"""The compiled parts of decoding with a model; between them the host looks at the search.

Each is compiled once for each shape of the search's state, strategy and model; the shapes are few
(:mod:`flax_transformer.decoding.room`).
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from flax_transformer.array_types import Array, Bool, Float, Int, UInt32
from flax_transformer.decoding.beam_state import BeamInputs
from flax_transformer.decoding.hypotheses import Hypotheses, StepFn
from flax_transformer.decoding.length_limits import relative_lengths
from flax_transformer.decoding.model_combinations import AVERAGE, Combination
from flax_transformer.decoding.prepare import DecodingModel, PreparedParameters, output_logits
from flax_transformer.decoding.row_parts import BatchRows
from flax_transformer.decoding.sampling import make_row_keys
from flax_transformer.decoding.search import Search, SearchState, rows_done, run_steps
from flax_transformer.decoding.strategies import (
    Strategy,
    make_search,
    needs_attention,
    num_hypotheses,
)
from flax_transformer.models.compact_cache import compact_cache, count_live_slots
from flax_transformer.models.decoder_cache import DecoderCache, grow_cache
from flax_transformer.models.decoder_only import DecoderOnly


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """What the programs of one kind of decoding share.

    Attributes:
        models: the prepared ones, mostly a single one.
        combine: how the distributions of several become one.
        strategy: how to search; with a seed of 0, since the seed is an argument of its own.
        bos_id: token that a decoder with an encoder reads first.
        eos_id: token that ends an output.
        pad_id: fills the outputs after their end.
    """

    models: tuple[DecodingModel, ...]
    combine: Combination = AVERAGE
    strategy: Strategy
    bos_id: int
    eos_id: int
    pad_id: int


class Progress(NamedTuple):
    """How far a search is.

    Attributes:
        num_steps: tokens that each hypothesis has.
        is_done: rows whose result is certain.
        num_live: slots of the cache that hypotheses of a row attend to; 0 for rows that are done.
    """

    num_steps: Int[Array, ""]
    is_done: Bool[Array, " B"]
    num_live: Int[Array, " B"]


@functools.partial(jax.jit, static_argnames=("task", "room"))
def start(
    task: Task,
    params: tuple[PreparedParameters, ...],
    rows: BatchRows,
    seed: UInt32[Array, ""],
    room: int,
) -> SearchState:
    """Read the inputs; return the state of the search before its first step."""
    inputs = jnp.asarray(rows.inputs)
    mask = None if rows.mask is None else jnp.asarray(rows.mask)
    if isinstance(task.models[0], DecoderOnly):
        start_tokens = _last_tokens(inputs, mask)
    else:
        start_tokens = jnp.full((inputs.shape[0],), task.bos_id, jnp.int32)
    caches = tuple(
        _read_inputs(model, of_model, inputs, mask, task.strategy, room)
        for model, of_model in zip(task.models, params, strict=True)
    )
    search = make_search(
        task.strategy,
        eos_id=task.eos_id,
        pad_id=task.pad_id,
        inputs=_add_relative_lengths(rows.options, task.strategy, inputs, mask),
        row_keys=make_row_keys(seed, jnp.asarray(rows.row_numbers)),
    )
    return search.start(caches, start_tokens, room)


@functools.partial(jax.jit, static_argnames=("task",))
def advance(
    task: Task,
    params: tuple[PreparedParameters, ...],
    state: SearchState,
    limit: Int[Array, ""],
    enough_done: Int[Array, ""],
) -> tuple[SearchState, Progress]:
    """Take steps until there are ``limit``, or until ``enough_done`` rows are done."""
    state = run_steps(
        _make_search(task),
        _make_step(task, params),
        state,
        limit=limit,
        enough_done=enough_done,
    )
    is_done = rows_done(state)
    # The caches of several models have the same hypotheses.
    num_live = jnp.where(is_done, 0, count_live_slots(state.cache[0]))
    return state, Progress(state.num_steps, is_done, num_live)


@functools.partial(jax.jit, static_argnames=("task", "room", "num_more", "num_slots"))
def grow(
    task: Task, state: SearchState, room: int, *, num_more: int, num_slots: int | None = None
) -> SearchState:
    """Make room for ``room`` tokens, ``num_more`` more than there was for.

    With ``num_slots``, at least as many as are alive in any row that is not done, a full cache is
    compacted first; see :func:`.compact_cache`.
    """
    state = _make_search(task).grow(state, room)

    def grow_one(cache: DecoderCache) -> DecoderCache:
        kept = cache if num_slots is None else compact_cache(cache, num_slots)
        return grow_cache(kept, num_more)

    return state._replace(cache=tuple(map(grow_one, state.cache)))


@jax.jit
def take_rows(state: SearchState, rows: Int[Array, " C"]) -> SearchState:
    """Return the state of the search of some of the rows."""
    return jax.tree.map(lambda leaf: leaf if leaf.ndim == 0 else leaf[rows], state)


@functools.partial(jax.jit, static_argnames=("task",))
def collect(task: Task, state: SearchState) -> Hypotheses:
    """Return the outputs, padded to the maximum length."""
    search = _make_search(task)
    return search.collect(search.grow(state, task.strategy.max_length))


def _make_search(task: Task) -> Search:
    return make_search(task.strategy, eos_id=task.eos_id, pad_id=task.pad_id)


def _add_relative_lengths(
    options: BeamInputs,
    strategy: Strategy,
    inputs: Int[Array, "B S"],
    mask: Bool[Array, "B S"] | None,
) -> BeamInputs:
    """Add the lengths that the ratios of the strategy allow each row."""
    source_lengths = (jnp.ones_like(inputs) if mask is None else mask).sum(axis=1)
    min_lengths, max_lengths = relative_lengths(strategy, source_lengths)
    given = options.options.max_lengths
    if given is not None:
        of_row = jnp.asarray(given)
        max_lengths = of_row if max_lengths is None else jnp.minimum(of_row, max_lengths)
    limits = options.options._replace(min_lengths=min_lengths, max_lengths=max_lengths)
    return options._replace(options=limits, source_mask=mask if needs_attention(strategy) else None)


def _make_step(task: Task, params: tuple[PreparedParameters, ...]) -> StepFn:
    """Return the step function of the models, whose cache is the tuple of theirs."""

    def make(model: DecodingModel, params: PreparedParameters) -> StepFn:
        def step(
            tokens: Int[Array, "B W"], cache: DecoderCache
        ) -> tuple[Float[Array, "B W V"], DecoderCache]:
            variables = {"params": params.model}
            states, cache = model.apply(variables, tokens, cache, method="step_states")
            return output_logits(states, params, model), cache

        return step

    steps = [make(model, of_model) for model, of_model in zip(task.models, params, strict=True)]
    if len(steps) > 1:
        return task.combine.make_step(steps)

    def only_step(
        tokens: Int[Array, "B W"], caches: tuple[DecoderCache, ...]
    ) -> tuple[Float[Array, "B W V"], tuple[DecoderCache, ...]]:
        logits, cache = steps[0](tokens, caches[0])
        return logits, (cache,)

    return only_step


def _read_inputs(
    model: DecodingModel,
    params: PreparedParameters,
    inputs: Int[Array, "B S"],
    mask: Bool[Array, "B S"] | None,
    strategy: Strategy,
    room: int,
) -> DecoderCache:
    """Encode the sources, or read all but the last token of each prompt; return the cache."""
    variables = {"params": params.model}
    size = {"beam_size": num_hypotheses(strategy), "max_length": room}
    cache: DecoderCache
    if isinstance(model, DecoderOnly):
        cache = model.apply(variables, inputs, mask, **size, method="init_cache")
    else:
        encoded = model.apply(variables, inputs, mask, method="encode")
        cache = model.apply(
            variables,
            encoded,
            mask,
            **size,
            keep_cross_weights=needs_attention(strategy),
            method="init_cache",
        )
    return cache


def _last_tokens(inputs: Int[Array, "B S"], mask: Bool[Array, "B S"] | None) -> Int[Array, " B"]:
    """Return the last token of each prompt."""
    if mask is None:
        return inputs[:, -1]
    last = inputs.shape[1] - 1 - jnp.argmax(mask[:, ::-1], axis=1)
    return jnp.take_along_axis(inputs, last[:, None], axis=1)[:, 0]
