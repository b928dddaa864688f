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
from flax_transformer.decoding.input_checks import (
    check_inputs,
    check_length,
    check_shapes,
    check_token,
)
from flax_transformer.decoding.model_combinations import AVERAGE, Combination
from flax_transformer.decoding.prepare import (
    AnyParameters,
    Models,
    PreparedParameters,
    prepare_all,
)
from flax_transformer.decoding.programs import Task
from flax_transformer.decoding.room import first_room
from flax_transformer.decoding.row_options import RowOptions, check_padded_tokens
from flax_transformer.decoding.row_parts import (
    BatchRows,
    count_parts,
    search_parts,
    split_rows,
)
from flax_transformer.decoding.sampling import Sampling
from flax_transformer.decoding.search import SearchState
from flax_transformer.decoding.strategies import Strategy
from flax_transformer.errors import InputError
from flax_transformer.parallel.processes import place_whole
from flax_transformer.parallel.threads import count_threads


def generate(
    model: Models,
    params: AnyParameters | tuple[AnyParameters, ...],
    inputs: Int[Array | np.ndarray, "B S"],
    *,
    strategy: Strategy,
    mask: Bool[Array | np.ndarray, "B S"] | None = None,
    prefixes: Int[Array | np.ndarray, "B P"] | None = None,
    constraints: Int[Array | np.ndarray, "B C L"] | None = None,
    max_lengths: Int[Array | np.ndarray, " B"] | None = None,
    row_numbers: Int[Array | np.ndarray, " B"] | None = None,
    combine: Combination = AVERAGE,
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
        model: an encoder–decoder or a decoder alone; or a tuple of several with one vocabulary.
        params: its parameters, or a tuple of those of each. They are prepared in every call unless
            :func:`.prepare_to_decode` has prepared the model and them: for many calls, it should.
        inputs: tokens of the sources or prompts, padded. Outputs do not repeat the prompt.
        strategy: how to search.
        mask: True on the tokens of ``inputs``; None where there is no padding.
        prefixes: first tokens of the output of each row, padded with -1 on the right; -1 in the
            first place leaves that one to the search.
        constraints: sequences of tokens that the outputs of each row must hold, padded with -1 on
            the right, for :class:`BeamSearch`; a row of fewer sequences has some of padding alone.
        max_lengths: tokens of each row's output at most; None for ``strategy.max_length`` alone.
        row_numbers: what tells rows apart for :class:`Sampling`, which gives a row the same outputs
            in every batch where it has the same number; None for 0, 1, …
        combine: how the distributions of several models become one at every step; without more
            said, their probabilities are averaged, an ensemble.
        sharding: how the rows lie on a mesh that ``params`` lie on too, for arrays of NumPy, which
            every process must hold whole; None for where they lie already.
        bos_id: token that the decoder of an encoder–decoder reads first.
        eos_id: token that ends an output.
        pad_id: fills the outputs after their end; no model reads it.

    Raises:
        InputError: a shape is another, a token is outside the vocabulary, a prompt is empty, or a
            length is over ``max_positions``.
    """
    job = prepare_job(
        model,
        params,
        inputs,
        strategy=strategy,
        mask=mask,
        prefixes=prefixes,
        constraints=constraints,
        max_lengths=max_lengths,
        row_numbers=row_numbers,
        combine=combine,
        sharding=sharding,
        bos_id=bos_id,
        eos_id=eos_id,
        pad_id=pad_id,
    )

    def search(rows: BatchRows) -> Hypotheses:
        return run_to_end(job.task, job.params, start(job, rows), rows_may_leave=sharding is None)

    num_parts = count_parts(len(inputs), count_threads()) if _is_on_one_cpu(job) else 1
    if num_parts == 1:
        return search(job.rows)
    # A sparse encoder's random blocks depend on the length that a row is padded to.
    is_dense = not any(each.config.encoder_sparsity.block_size for each in job.task.models)
    return search_parts(search, split_rows(job.rows, num_parts, trim=is_dense), key=job.task)


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
    max_lengths: Int[Array | np.ndarray, " B"] | None,
    row_numbers: Int[Array | np.ndarray, " B"] | None,
    combine: Combination,
    sharding: NamedSharding | None,
    bos_id: int | None,
    eos_id: int,
    pad_id: int,
) -> Job:
    """Check what is asked for, and prepare it; arguments as for :func:`generate`."""
    models, prepared = prepare_all(model, params)
    if len(models) > 1 or combine != AVERAGE:
        combine.check_count(len(models))
    check_shapes(
        inputs,
        mask,
        prefixes=prefixes,
        constraints=constraints,
        max_lengths=max_lengths,
        row_numbers=row_numbers,
    )
    inputs = inputs if isinstance(inputs, jax.Array) else np.asarray(inputs)
    mask = mask if mask is None or isinstance(mask, jax.Array) else np.asarray(mask, bool)
    if max_lengths is not None:
        max_lengths = np.minimum(np.asarray(max_lengths, np.int32), strategy.max_length)
    for each in models:
        start_id = check_inputs(each, inputs, mask, bos_id)
        limits = strategy.max_length if max_lengths is None else max_lengths
        check_length(each, inputs, mask, limits)
    vocab_size = models[0].config.target_vocab_size
    check_token("eos_id", eos_id, vocab_size)
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
    if max_lengths is not None:
        # By a mask, the model counts the positions of each row rather than those of all.
        mask = np.ones(inputs.shape, bool) if mask is None else mask
    options = BeamInputs(RowOptions(max_lengths=max_lengths, prefixes=prefixes), constraints)
    rows = BatchRows(inputs, mask, row_numbers, options)
    if sharding is not None:
        rows = jax.tree.map(functools.partial(place_whole, sharding=sharding), rows)
    task = Task(
        models=models,
        combine=combine,
        strategy=strategy,
        bos_id=start_id,
        eos_id=eos_id,
        pad_id=pad_id,
    )
    return Job(task, prepared, rows, seed)


def start(job: Job, rows: BatchRows) -> SearchState:
    """Read the inputs of all or some rows of a job; return the search before its first step."""
    room = first_room(job.task.strategy.max_length)
    return programs.start(job.task, job.params, rows, job.seed, room)


def _is_on_one_cpu(job: Job) -> bool:
    """Tell whether all arrays are of the host or of one device that is a CPU."""
    leaves = [
        leaf for leaf in jax.tree.leaves((job.params, job.rows)) if isinstance(leaf, jax.Array)
    ]
    devices = {device for leaf in leaves for device in leaf.devices()}
    return len(devices) == 1 and devices.pop().platform == "cpu"
