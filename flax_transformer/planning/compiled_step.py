"""Compile the training step of an experiment without making any of its arrays."""

import dataclasses
import math
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from flax_transformer.config import ExperimentConfig
from flax_transformer.data.batch import AnyBatch, Batch, LabelledBatch, TextBatch
from flax_transformer.data.bucketing import Bucket
from flax_transformer.data.pipeline import make_shapes
from flax_transformer.models.make_model import make_model
from flax_transformer.parallel.mesh import batch_sharding, num_batch_shards
from flax_transformer.training.optimizer import make_optimizer
from flax_transformer.training.program import TrainingProgram, make_program
from flax_transformer.training.state import TrainState
from flax_transformer.training.training_config import Task


class CompiledStep(NamedTuple):
    """A training step that is ready to run, and what it would run on.

    Attributes:
        executable: the compiled step.
        program: what it was compiled from.
        batch_shape: rows of the global batch and positions of each side of a row.
    """

    executable: jax.stages.Compiled
    program: TrainingProgram
    batch_shape: Bucket

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
    batch = abstract_batch(config.training.task, shape, mesh)
    train_step = cast(jax.stages.Wrapped, program.train_step)
    executable = train_step.lower(program.abstract_state, batch).compile()
    return CompiledStep(executable, program, shape)


def abstract_batch(task: Task, shape: Bucket, mesh: Mesh) -> AnyBatch:
    """Return the shapes of a batch of a task, with their shardings."""
    rows, labels = (
        jax.ShapeDtypeStruct(axes, jnp.int32, sharding=batch_sharding(mesh))
        for axes in (shape, shape[:1])
    )
    match task:
        case "translation":
            return Batch._make(rows for _ in Batch._fields)
        case "sequence_classification":
            return LabelledBatch._make(
                labels if name == "labels" else rows for name in LabelledBatch._fields
            )
        case "language_modelling" | "masked_language_modelling":
            return TextBatch._make(rows for _ in TextBatch._fields)


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
