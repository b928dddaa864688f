"""The loop over the compiled parts of decoding, in which rows that are done leave the batch."""

import jax
import jax.numpy as jnp
import numpy as np

from flax_transformer.array_types import Bool, Int
from flax_transformer.decoding import programs
from flax_transformer.decoding.hypotheses import Hypotheses
from flax_transformer.decoding.prepare import PreparedParameters
from flax_transformer.decoding.programs import Task
from flax_transformer.decoding.room import first_room, next_room, slots_to_keep
from flax_transformer.decoding.search import SearchState
from flax_transformer.decoding.strategies import reorders_hypotheses
from flax_transformer.models.decoder_cache import count_slots
from flax_transformer.parallel.processes import fetch

_LEAVE_FACTOR = 8
"""A batch becomes so many times smaller at once: each size is compiled for itself."""

_FEWEST_ROWS = 4
"""A batch becomes no smaller than this: the weights take their time even for a single row."""

_NO_ROW = -1


def run_to_end(
    task: Task, params: tuple[PreparedParameters, ...], state: SearchState, *, rows_may_leave: bool
) -> Hypotheses:
    """Search until all rows are done or have the maximum length; return their outputs.

    The state grows when its room is used up, and what no hypothesis of a beam attends to any more
    leaves its cache then. With ``rows_may_leave``, rows that are done leave the state as soon as
    the others are few enough for the next smaller batch. But for rounding, what is found for a row
    does not depend on either.
    """
    max_length = task.strategy.max_length
    reorders = reorders_hypotheses(task.strategy)
    room = first_room(max_length)
    places = np.arange(state.is_done.shape[0])
    found: Hypotheses | None = None
    while True:
        num_rows = len(places)
        smaller = _smaller_size(num_rows) if rows_may_leave else 0
        enough_done = num_rows - smaller
        state, progress = programs.advance(task, params, state, room, enough_done)
        num_steps, is_done, num_live = fetch(progress)
        if num_steps == max_length or is_done.all():
            break
        if is_done.sum() >= enough_done:
            found = _store(found, programs.collect(task, state), places, is_done)
            rows = _choose_rows(is_done)
            state = programs.take_rows(state, rows)
            places = np.where(is_done[rows], _NO_ROW, places[rows])
        if num_steps == room:
            full, room = room, next_room(room, max_length)
            kept = None
            if reorders:
                kept = slots_to_keep(full, int(num_live.max()), count_slots(state.cache[0]))
            state = programs.grow(task, state, room, num_more=room - full, num_slots=kept)
    hypotheses = programs.collect(task, state)
    if found is None:
        return hypotheses
    return jax.tree.map(jnp.asarray, _store(found, hypotheses, places, np.ones_like(is_done)))


def _smaller_size(num_rows: int) -> int:
    """Return the next batch size, 0 where there is none."""
    smaller = num_rows // _LEAVE_FACTOR
    return smaller if smaller >= _FEWEST_ROWS else 0


def _choose_rows(is_done: Bool[np.ndarray, " B"]) -> Int[np.ndarray, " C"]:
    """Return the rows that go on, and as many that are done as the next batch size needs.

    >>> _choose_rows(np.arange(32) != 9)
    array([0, 1, 2, 9])
    """
    num_rows, num_left = len(is_done), int((~is_done).sum())
    while 0 < num_left <= _smaller_size(num_rows):
        num_rows = _smaller_size(num_rows)
    return np.sort(np.argsort(is_done, kind="stable")[:num_rows])


def _store(
    found: Hypotheses | None,
    hypotheses: Hypotheses,
    places: Int[np.ndarray, " C"],
    is_done: Bool[np.ndarray, " C"],
) -> Hypotheses:
    """Write the outputs of the rows that are done to their places among those of the batch."""
    fields = jax.device_get(hypotheses)
    if found is None:
        # No row has left yet: these are all of them, and those not done will be written over.
        return jax.tree.map(np.array, fields)
    is_new = is_done & (places != _NO_ROW)
    for array, field in zip(found, fields, strict=True):
        array[places[is_new]] = field[is_new]
    return found
