"""Compile the training step of an experiment without making any of its arrays."""

import dataclasses
import math
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from flax_transformer.array_types import Parameters
from flax_transformer.config import ExperimentConfig
from flax_transformer.data.batch import AnyBatch, Batch, LabelledBatch, TextBatch
from flax_transformer.data.bucketing import Bucket
from flax_transformer.data.pipeline import make_shapes
from flax_transformer.errors import InputError
from flax_transformer.models.make_model import make_model
from flax_transformer.parallel.mesh import batch_sharding, num_batch_shards
from flax_transformer.training.optimizer import make_optimizer
from flax_transformer.training.program import TrainingProgram, make_program
from flax_transformer.training.state import TrainState, find_trained
from flax_transformer.training.trained_part import split_parameters


class CompiledStep(NamedTuple):
    """A training step that is ready to run, and what it would run on.

    Attributes:
        executable: the compiled step.
        program: what it was compiled from.
        batch_shape: rows of the global batch and positions of each side of a row.
        trained: those of the state's parameters, adapters included, that are trained.
    """

    executable: jax.stages.Compiled
    program: TrainingProgram
    batch_shape: Bucket
    trained: Parameters

    @property
    def state(self) -> TrainState:
        """Shapes, dtypes and shardings of the training state."""
        return self.program.abstract_state


def compile_step(config: ExperimentConfig, mesh: Mesh) -> CompiledStep:
    """Compile what training by ``config`` on ``mesh`` would run at every step.

    Of buckets of several lengths the largest is taken.

    Raises:
        InputError: the parameters or the batch do not fit the mesh.
    """
    config = with_vocabulary_bound(config)
    optimizer = make_optimizer(config.optimizer, num_steps=config.training.num_steps)
    program = make_program(
        make_model(config.model), optimizer, config.training, mesh, config.sharding
    )
    shape = largest_batch(config, mesh)
    batch = abstract_batch(config, shape, mesh)
    train_step = cast(jax.stages.Wrapped, program.train_step)
    executable = train_step.lower(program.abstract_state, batch).compile()
    params, training = program.abstract_state.params, config.training
    trained = find_trained(params, frozen=training.frozen, lora=training.lora)
    return CompiledStep(executable, program, shape, split_parameters(params, trained)[0])


def abstract_batch(config: ExperimentConfig, shape: Bucket, mesh: Mesh) -> AnyBatch:
    """Return the shapes of a batch of what the model reads, with their shardings.

    Raises:
        InputError: there is no training of such a model.
    """
    rows, labels = (
        jax.ShapeDtypeStruct(axes, jnp.int32, sharding=batch_sharding(mesh))
        for axes in (shape, shape[:1])
    )
    match config.model.architecture, config.model.head:
        case "encoder_decoder", _:
            return Batch._make(rows for _ in Batch._fields)
        case ("decoder_only", _) | (_, "masked_lm"):
            return TextBatch._make(rows for _ in TextBatch._fields)
        case _, "sequence_classification":
            return LabelledBatch._make(
                labels if name == "labels" else rows for name in LabelledBatch._fields
            )
        case _, head:
            raise InputError(
                "model.head must be masked_lm or sequence_classification to be trained, got "
                f"{head}."
            )


def largest_batch(config: ExperimentConfig, mesh: Mesh) -> Bucket:
    """Return the shape of the global batch that has the most positions.

    Raises:
        InputError: the batch is too small for the mesh.
    """
    row_multiple = num_batch_shards(mesh) * config.training.accumulation_steps
    shapes = make_shapes(config.pipeline, math.lcm(row_multiple, config.pipeline.num_streams))
    return max(shapes, key=lambda shape: shape.num_rows * shape.row_length)


def with_vocabulary_bound(config: ExperimentConfig) -> ExperimentConfig:
    """Give the model as many tokens as the tokenizer may have; the trained one may have fewer."""
    size = config.tokenizer.vocab_size
    model = dataclasses.replace(config.model, source_vocab_size=size, target_vocab_size=size)
    return dataclasses.replace(config, model=model)
