"""Beam search over a step function."""

import jax
import jax.numpy as jnp

from flax_transformer.array_types import Array, Int
from flax_transformer.decoding.beam_state import (
    NO_INPUTS,
    BeamInputs,
    BeamState,
    grow_beams,
    join_groups,
    split_groups,
    start_beams,
)
from flax_transformer.decoding.beam_step import advance_beams
from flax_transformer.decoding.beam_strategy import BeamSearch
from flax_transformer.decoding.coverage_penalty import AttentionFn
from flax_transformer.decoding.finished_pool import drop_duplicates, keep_best
from flax_transformer.decoding.hypotheses import (
    Cache,
    Hypotheses,
    ReorderFn,
    StepFn,
    drop_impossible,
)
from flax_transformer.decoding.search import Search, run_search
from flax_transformer.errors import InputError


def beam_search(
    step_fn: StepFn,
    reorder_fn: ReorderFn,
    cache: Cache,
    start_tokens: Int[Array, " B"],
    *,
    strategy: BeamSearch,
    eos_id: int,
    pad_id: int,
    inputs: BeamInputs = NO_INPUTS,
    attention_fn: AttentionFn | None = None,
) -> Hypotheses:
    """Search for the hypotheses of the highest score; one compiled loop.

    At each step the 2 W best continuations of all W hypotheses are taken. Those of the W best that
    end, or reach the length limit, are finished; the W best of those that do not are kept. With
    ``beam_size`` 1 and ``early_stopping`` ``"first"`` this is greedy decoding, and with a beam as
    wide as the space it is exhaustive search. Rows do not influence each other.

    With constraints no hypothesis ends without them. Where the length limit comes before any one
    has them all, those that have most of them are returned. To find them, places of the beam are
    shared among hypotheses by how much of the constraints they hold (see
    :mod:`flax_transformer.decoding.lexical_constraints`).

    The most probable first token is not always on the best path:

    >>> table = jnp.log(jnp.array([[0, 0.6, 0.4], [0.4, 0.3, 0.3], [1, 0, 0]]))
    >>> for beam_size in (1, 2):
    ...     best = beam_search(
    ...         lambda tokens, cache: (table[tokens], cache),
    ...         lambda cache, parents: cache,
    ...         None,
    ...         jnp.array([0]),
    ...         strategy=BeamSearch(beam_size=beam_size, max_length=4, length_penalty=0.0),
    ...         eos_id=0,
    ...         pad_id=-1,
    ...     )
    ...     print(best.tokens[0, 0], f"{jnp.exp(best.scores[0, 0]):.2f}")
    [ 1  0 -1 -1] 0.24
    [ 2  0 -1 -1] 0.40

    Args:
        step_fn: maps the last token of each hypothesis and the cache to logits and the new cache.
        reorder_fn: reorders the cache's hypotheses.
        cache: the cache before the first step.
        start_tokens: what the first step reads.
        strategy: options of the search.
        eos_id: token that ends a hypothesis.
        pad_id: fills ``tokens`` after the end.
        inputs: limits, prefixes and constraints, row by row.
        attention_fn: reads the attention of the last step from the cache; for a coverage penalty.

    Returns:
        The ``num_best`` best hypotheses, finished or of length ``max_length``.

    Raises:
        InputError: there is a coverage penalty and no ``attention_fn``.
    """
    search = make_beam_search(
        strategy, reorder_fn, eos_id=eos_id, pad_id=pad_id, inputs=inputs, attention_fn=attention_fn
    )
    return run_search(search, step_fn, cache, start_tokens, max_length=strategy.max_length)


def make_beam_search(
    strategy: BeamSearch,
    reorder_fn: ReorderFn,
    *,
    eos_id: int,
    pad_id: int,
    inputs: BeamInputs = NO_INPUTS,
    attention_fn: AttentionFn | None = None,
) -> Search:
    """Return beam search as functions of a state; arguments as for :func:`beam_search`.

    Only ``start`` reads ``inputs``: from then on they are in the state.
    """
    if strategy.coverage_penalty == 0.0:
        attention_fn = None
    elif attention_fn is None:
        raise InputError(
            f"coverage_penalty must be 0 without attention to a source, "
            f"got {strategy.coverage_penalty}."
        )
    num_groups = strategy.num_groups

    def start(cache: Cache, start_tokens: Int[Array, " B"], room: int) -> BeamState:
        beams = start_beams(
            (start_tokens.shape[0], num_groups, strategy.group_size),
            start_tokens,
            room,
            num_positions=None if attention_fn is None else attention_fn(cache).shape[-1],
            pad_id=pad_id,
        )
        return BeamState(jnp.zeros((), jnp.int32), beams, inputs, cache)

    def step(step_fn: StepFn, state: BeamState) -> BeamState:
        num_rows = state.is_done.shape[0]
        logits, cache = step_fn(state.beams.last.reshape(num_rows, -1), state.cache)
        attention = None if attention_fn is None else attention_fn(cache)

        def split(array: Array) -> Array:
            return array.reshape(-1, strategy.group_size, array.shape[-1]).astype(jnp.float32)

        beams, parents = advance_beams(
            *split_groups(state.beams, state.inputs),
            state.num_steps,
            split(logits),
            None if attention is None else split(attention),
            strategy=strategy,
            eos_id=eos_id,
        )
        # Places in the beam of a group become places among all hypotheses of the row.
        starts = strategy.group_size * jnp.arange(num_groups)[:, None]
        parents = (parents.reshape(num_rows, num_groups, -1) + starts).reshape(num_rows, -1)
        return BeamState(
            state.num_steps + 1,
            join_groups(beams, num_groups),
            state.inputs,
            reorder_fn(cache, parents),
        )

    def grow(state: BeamState, room: int) -> BeamState:
        return state._replace(beams=grow_beams(state.beams, room, pad_id))

    return Search(start, step, grow, lambda state: _collect(state, strategy, pad_id))


def _collect(state: BeamState, strategy: BeamSearch, pad_id: int) -> Hypotheses:
    """Return the best finished hypotheses of all groups of each row."""
    num_rows = state.is_done.shape[0]
    found = jax.tree.map(
        lambda field: field.reshape(num_rows, strategy.beam_size, *field.shape[3:]),
        state.beams.finished,
    )
    if strategy.num_groups > 1:
        found = drop_duplicates(found)
    best = keep_best(found, strategy.num_best)
    # Fewer hypotheses than asked for: the rest is empty rather than a remnant of the search.
    return drop_impossible(best, pad_id)
