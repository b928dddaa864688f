"""Tokens as they are made, for those who do not want to wait for the end."""

from collections.abc import Iterator

import jax
import numpy as np

from flax_transformer.array_types import Array, Bool, Int
from flax_transformer.decoding import programs
from flax_transformer.decoding.generate import prepare_job, start
from flax_transformer.decoding.greedy import Greedy
from flax_transformer.decoding.model_combinations import AVERAGE, Combination
from flax_transformer.decoding.prepare import AnyParameters, Models, PreparedParameters
from flax_transformer.decoding.programs import Task
from flax_transformer.decoding.room import first_room, next_room
from flax_transformer.decoding.sampling import Sampling
from flax_transformer.decoding.search import SearchState
from flax_transformer.errors import InputError


def stream(
    model: Models,
    params: AnyParameters | tuple[AnyParameters, ...],
    inputs: Int[Array | np.ndarray, "B S"],
    *,
    strategy: Greedy | Sampling,
    mask: Bool[Array | np.ndarray, "B S"] | None = None,
    prefixes: Int[Array | np.ndarray, "B P"] | None = None,
    max_lengths: Int[Array | np.ndarray, " B"] | None = None,
    row_numbers: Int[Array | np.ndarray, " B"] | None = None,
    combine: Combination = AVERAGE,
    chunk_size: int = 8,
    bos_id: int | None = None,
    eos_id: int,
    pad_id: int,
) -> Iterator[Int[np.ndarray, " B"]]:
    """Yield the next token of every row, step after step, until all rows are done.

    The tokens are those of :func:`.generate` with the same arguments. Rows that are done yield
    ``pad_id``, and so do those to which no token is left: :func:`.generate` gives nothing for them,
    where here the tokens before have been yielded. The device makes ``chunk_size`` tokens at once,
    since each time that the host waits for it costs as much as a token of a small model; the first
    one comes alone.

    Args:
        model: one or several, as for :func:`.generate`.
        params: its parameters, as for :func:`.generate`.
        inputs: tokens of the sources or prompts, padded.
        strategy: greedy decoding, or sampling of one output a row.
        mask: True on the tokens of ``inputs``; None where there is no padding.
        prefixes: first tokens of the output of each row, padded with -1 on the right; -1 in the
            first place leaves that one to the search.
        max_lengths: tokens of each row's output at most; None for the strategy's alone.
        row_numbers: what tells rows apart for :class:`Sampling`; None for 0, 1, …
        combine: how several models decode together.
        chunk_size: tokens that are made at once, at least 1.
        bos_id: token that the decoder of an encoder–decoder reads first.
        eos_id: token that ends an output.
        pad_id: what is yielded after the end.

    Raises:
        InputError: when called, where :func:`.generate` does, or the strategy is another one.
    """
    if not isinstance(strategy, Greedy | Sampling):
        raise InputError(
            f"strategy must be Greedy or Sampling to stream, got {type(strategy).__name__}."
        )
    if isinstance(strategy, Sampling) and strategy.num_samples != 1:
        raise InputError(f"num_samples must be 1 to stream, got {strategy.num_samples}.")
    if chunk_size < 1:
        raise InputError(f"chunk_size must be at least 1, got {chunk_size}.")
    job = prepare_job(
        model,
        params,
        inputs,
        strategy=strategy,
        mask=mask,
        prefixes=prefixes,
        constraints=None,
        max_lengths=max_lengths,
        row_numbers=row_numbers,
        combine=combine,
        sharding=None,
        bos_id=bos_id,
        eos_id=eos_id,
        pad_id=pad_id,
    )
    return _yield_tokens(job.task, job.params, start(job, job.rows), chunk_size, pad_id)


def _yield_tokens(
    task: Task,
    params: tuple[PreparedParameters, ...],
    state: SearchState,
    chunk_size: int,
    pad_id: int,
) -> Iterator[Int[np.ndarray, " B"]]:
    max_length = task.strategy.max_length
    room = first_room(max_length)
    num_rows = state.is_done.shape[0]
    num_yielded = 0
    while True:
        limit = min(num_yielded + (chunk_size if num_yielded else 1), room)
        state, progress = programs.advance(task, params, state, limit, num_rows)
        tokens, scores, (num_steps, is_done, _) = jax.device_get(
            (state.tokens, state.token_scores, progress)
        )
        is_impossible = np.logical_or.accumulate(scores[:, 0] == -np.inf, axis=1)
        tokens = np.where(is_impossible, pad_id, tokens[:, 0])
        yield from tokens[:, num_yielded:num_steps].T
        num_yielded = int(num_steps)
        if is_done.all() or num_yielded == max_length:
            return
        if num_yielded == room:
            room = next_room(room, max_length)
            state = programs.grow(task, state, room, num_more=room - num_yielded)
