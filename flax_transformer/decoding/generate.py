"""Decoding with a model: the search over its steps, from inputs to hypotheses."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import NamedSharding

from flax_transformer.array_types import Array, Bool, Int
from flax_transformer.decoding import programs
from flax_transformer.decoding.batch_loop import run_to_end
from flax_transformer.decoding.beam_state import BeamInputs
from flax_transformer.decoding.beam_strategy import BeamSearch
from flax_transformer.decoding.hypotheses import Hypotheses
from flax_transformer.decoding.prepare import (
    AnyParameters,
    DecodingModel,
    Models,
    PreparedParameters,
    prepare_all,
)
from flax_transformer.decoding.programs import Task
from flax_transformer.decoding.row_options import RowOptions, check_padded_tokens
from flax_transformer.decoding.row_parts import (
    BatchRows,
    count_cores,
    count_parts,
    search_parts,
    split_rows,
)
from flax_transformer.decoding.sampling import Sampling
from flax_transformer.decoding.search import SearchState
from flax_transformer.decoding.strategies import Strategy
from flax_transformer.errors import InputError
from flax_transformer.models.decoder_only import DecoderOnly
from flax_transformer.parallel.processes import place_whole


def generate(
    model: Models,
    params: AnyParameters | tuple[AnyParameters, ...],
    inputs: Int[Array | np.ndarray, "B S"],
    *,
    strategy: Strategy,
    mask: Bool[Array | np.ndarray, "B S"] | None = None,
    prefixes: Int[Array | np.ndarray, "B P"] | None = None,
    constraints: Int[Array | np.ndarray, "B C L"] | None = None,
    row_numbers: Int[Array | np.ndarray, " B"] | None = None,
    sharding: NamedSharding | None = None,
    bos_id: int | None = None,
    eos_id: int,
    pad_id: int,
) -> Hypotheses:
    """Generate what follows each input: the target of a source, or the rest of a prompt.

    The encoder runs once a sentence, and so do the keys and values of cross-attention, which all
    hypotheses share; a prompt is read in one pass. What is kept of the outputs grows with them, and
    rows that are done leave the batch when most of it is. On a CPU, a batch of sixteen rows or more
    is worked at in parts (:mod:`flax_transformer.decoding.row_parts`). Programs are compiled once
    for each shape, strategy and model.

    A source without any token (a mask of False) gives some finite result.

    Args:
        model: an encoder–decoder or a decoder alone; or a tuple of several with one vocabulary, an
            ensemble, whose probabilities are averaged at every step.
        params: its parameters, or a tuple of those of each. They are prepared in every call unless
            :func:`.prepare_to_decode` has prepared the model and them: for many calls, it should.
        inputs: tokens of the sources or prompts, padded. Outputs do not repeat the prompt.
        strategy: how to search.
        mask: True on the tokens of ``inputs``; None where there is no padding.
        prefixes: first tokens of the output of each row, padded with -1 on the right.
        constraints: sequences of tokens that the outputs of each row must hold, padded with -1 on
            the right, for :class:`BeamSearch`; a row of fewer sequences has some of padding alone.
        row_numbers: what tells rows apart for :class:`Sampling`, which gives a row the same outputs
            in every batch where it has the same number; None for 0, 1, …
        sharding: how the rows lie on a mesh that ``params`` lie on too, for arrays of NumPy, which
            every process must hold whole; None for where they lie already.
        bos_id: token that the decoder of an encoder–decoder reads first.
        eos_id: token that ends an output.
        pad_id: fills the outputs after their end.

    Raises:
        InputError: a token is outside the vocabulary, a prompt is empty, or a length is over
            ``max_positions``.
    """
    job = prepare_job(
        model,
        params,
        inputs,
        strategy=strategy,
        mask=mask,
        prefixes=prefixes,
        constraints=constraints,
        row_numbers=row_numbers,
        sharding=sharding,
        bos_id=bos_id,
        eos_id=eos_id,
        pad_id=pad_id,
    )

    def search(rows: BatchRows) -> Hypotheses:
        return run_to_end(job.task, job.params, start(job, rows), rows_may_leave=sharding is None)

    num_parts = count_parts(len(inputs), count_cores()) if _is_on_one_cpu(job) else 1
    if num_parts == 1:
        return search(job.rows)
    return search_parts(search, split_rows(job.rows, num_parts), key=job.task)


class Job(NamedTuple):
    """What there is to do.

    Attributes:
        task: what its programs are compiled for.
        params: prepared parameters of each model.
        rows: what each row is given.
        seed: of random numbers.
    """

    task: Task
    params: tuple[PreparedParameters, ...]
    rows: BatchRows
    seed: np.uint32


def prepare_job(
    model: Models,
    params: AnyParameters | tuple[AnyParameters, ...],
    inputs: Int[Array | np.ndarray, "B S"],
    *,
    strategy: Strategy,
    mask: Bool[Array | np.ndarray, "B S"] | None,
    prefixes: Int[Array | np.ndarray, "B P"] | None,
    constraints: Int[Array | np.ndarray, "B C L"] | None,
    row_numbers: Int[Array | np.ndarray, " B"] | None,
    sharding: NamedSharding | None,
    bos_id: int | None,
    eos_id: int,
    pad_id: int,
) -> Job:
    """Check what is asked for, and prepare it; arguments as for :func:`generate`."""
    models, prepared = prepare_all(model, params)
    for each in models:
        start_id = _check_inputs(each, inputs, mask, bos_id)
        _check_length(each, inputs, strategy.max_length)
    vocab_size = models[0].config.target_vocab_size
    if isinstance(strategy, BeamSearch) and strategy.beam_size > vocab_size:
        raise InputError(
            f"beam_size must be at most the {vocab_size} tokens of the target, "
            f"got {strategy.beam_size}."
        )
    for name, tokens in (("prefixes", prefixes), ("constraints", constraints)):
        if tokens is not None:
            check_padded_tokens(
                name, tokens, num_rows=len(inputs), vocab_size=vocab_size, eos_id=eos_id
            )
    if row_numbers is None:
        row_numbers = np.arange(len(inputs), dtype=np.int32)
    seed = np.uint32(0)
    if isinstance(strategy, Sampling):
        # An argument of the program rather than a part of it: another seed needs no other program.
        seed, strategy = np.uint32(strategy.seed), dataclasses.replace(strategy, seed=0)
    options = BeamInputs(RowOptions(prefixes=prefixes), constraints)
    rows = BatchRows(inputs, mask, row_numbers, options)
    if sharding is not None:
        rows = jax.tree.map(functools.partial(place_whole, sharding=sharding), rows)
    task = Task(models=models, strategy=strategy, bos_id=start_id, eos_id=eos_id, pad_id=pad_id)
    return Job(task, prepared, rows, seed)


def start(job: Job, rows: BatchRows) -> SearchState:
    """Read the inputs of all or some rows of a job; return the search before its first step."""
    room = programs.first_room(job.task.strategy.max_length)
    return programs.start(job.task, job.params, rows, job.seed, room)


def _is_on_one_cpu(job: Job) -> bool:
    """Tell whether all arrays are of the host or of one device that is a CPU."""
    leaves = [
        leaf for leaf in jax.tree.leaves((job.params, job.rows)) if isinstance(leaf, jax.Array)
    ]
    devices = {device for leaf in leaves for device in leaf.devices()}
    return len(devices) == 1 and devices.pop().platform == "cpu"


def check_tokens(name: str, tokens: Int[Array | np.ndarray, "*B"], vocab_size: int) -> None:
    """Raise InputError if a token is outside the vocabulary; on the host, before any tracing."""
    tokens = np.asarray(tokens)
    if tokens.size and (tokens.min() < 0 or tokens.max() >= vocab_size):
        raise InputError(
            f"{name} must hold tokens from 0 to {vocab_size - 1}, "
            f"got {tokens.min()} to {tokens.max()}."
        )


def _check_inputs(
    model: DecodingModel,
    inputs: Int[Array | np.ndarray, "B S"],
    mask: Bool[Array | np.ndarray, "B S"] | None,
    bos_id: int | None,
) -> int:
    """Return the token that the decoder of an encoder–decoder reads first, and 0 without one."""
    if isinstance(model, DecoderOnly):
        check_tokens("inputs", inputs, model.config.target_vocab_size)
        has_tokens = inputs.shape[1] > 0 if mask is None else np.asarray(mask).any(axis=1).all()
        if not has_tokens:
            raise InputError("each prompt must hold at least one token, got an empty one.")
        return 0
    check_tokens("inputs", inputs, model.config.source_vocab_size)
    if bos_id is None:
        raise InputError("bos_id must be given for a model with an encoder.")
    if not 0 <= bos_id < model.config.target_vocab_size:
        raise InputError(
            f"bos_id must lie between 0 and {model.config.target_vocab_size - 1}, got {bos_id}."
        )
    return bos_id


def _check_length(
    model: DecodingModel, inputs: Int[Array | np.ndarray, "B S"], max_length: int
) -> None:
    """Raise InputError if an output could be longer than the model can read."""
    max_positions = model.config.position_limit
    if max_positions is None:
        return
    if isinstance(model, DecoderOnly):
        if inputs.shape[1] + max_length - 1 > max_positions:
            raise InputError(
                f"prompt and max_length must be at most {max_positions + 1} tokens together for "
                f"max_positions = {max_positions}, got {inputs.shape[1]} + {max_length}."
            )
    elif max_length > max_positions:
        raise InputError(
            f"max_length must be at most max_positions = {max_positions}, got {max_length}."
        )
