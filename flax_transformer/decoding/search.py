"""Searches as functions of a state, so that a caller may stop between steps."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from flax_transformer.array_types import Array, Bool, Int
from flax_transformer.decoding.hypotheses import Cache, Hypotheses, StepFn

SearchState: TypeAlias = Any
"""What a search knows after ``num_steps`` steps: a NamedTuple of arrays.

It has the fields ``num_steps``, a scalar; ``is_done``, of the rows or of the hypotheses of each;
and ``cache``. Every other array begins with the rows: rows of a state can be taken out of it, and
their search goes on without the others.
"""


class Search(NamedTuple):
    """A search, cut into functions of its state.

    Attributes:
        start: makes the state before the first step from the cache, the first tokens to read and
            the room, the number of tokens that outputs may have until the state must grow.
        step: takes one step.
        grow: makes room for so many tokens; the result does not depend on when that is.
        collect: returns what has been found once all rows are done or ``max_length`` is reached.
    """

    start: Callable[[Cache, Int[Array, " B"], int], SearchState]
    step: Callable[[StepFn, SearchState], SearchState]
    grow: Callable[[SearchState, int], SearchState]
    collect: Callable[[SearchState], Hypotheses]


def run_search(
    search: Search,
    step_fn: StepFn,
    cache: Cache,
    start_tokens: Int[Array, " B"],
    *,
    max_length: int,
) -> Hypotheses:
    """Search to the end in one compiled loop, with room for ``max_length`` tokens at once."""
    state = search.start(cache, start_tokens, max_length)
    state = run_steps(search, step_fn, state, limit=max_length, enough_done=start_tokens.shape[0])
    return search.collect(state)


def run_steps(
    search: Search,
    step_fn: StepFn,
    state: SearchState,
    *,
    limit: int | Int[Array, ""],
    enough_done: int | Int[Array, ""],
) -> SearchState:
    """Take steps until there are ``limit`` or ``enough_done`` rows are done; one compiled loop."""

    def goes_on(state: SearchState) -> Bool[Array, ""]:
        return (state.num_steps < limit) & (rows_done(state).sum() < enough_done)

    return jax.lax.while_loop(goes_on, lambda state: search.step(step_fn, state), state)


def rows_done(state: SearchState) -> Bool[Array, " B"]:
    """Tell the rows whose result is certain."""
    return state.is_done.reshape(state.is_done.shape[0], -1).all(axis=1)


def grow_last_axis(array: Array, size: int, fill: float) -> Array:
    """Lengthen the last axis to ``size`` by entries of ``fill``.

    >>> grow_last_axis(jnp.array([[1, 2]]), 3, -1)
    Array([[ 1,  2, -1]], dtype=int32)
    """
    padding = [(0, 0)] * (array.ndim - 1) + [(0, size - array.shape[-1])]
    return jnp.pad(array, padding, constant_values=fill)
