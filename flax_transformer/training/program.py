"""What a training run executes on the devices: the making of its first state, and its step."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import optax
from jax.sharding import Mesh

from flax_transformer.array_types import Array, Key
from flax_transformer.models.make_model import Model
from flax_transformer.parallel.parameter_sharding import placed_shapes
from flax_transformer.parallel.sharding_rules import ShardingRules
from flax_transformer.training.lora import merge_adapters
from flax_transformer.training.objective import make_loss_function
from flax_transformer.training.state import (
    TrainState,
    abstract_trained_model,
    find_trained,
    init_state,
)
from flax_transformer.training.step import TrainStep, make_train_step
from flax_transformer.training.training_config import TrainingConfig

_COMPILER_OPTIONS = {"xla_cpu_copy_insertion_use_region_analysis": True}
"""Lets moments be updated in place. Otherwise XLA's CPU backend copies each before it writes it,
since the update of the parameters reads the old one, too."""


class TrainingProgram(NamedTuple):
    """The jitted functions of a run, not compiled yet.

    Attributes:
        init_state: makes the first state from a key, each array where it will lie: no device ever
            holds it whole.
        train_step: see :func:`.step.make_train_step`; takes the memory of the state given to it.
        abstract_state: the state's shapes, with their shardings.
    """

    init_state: Callable[[Key[Array, ""]], TrainState]
    train_step: TrainStep
    abstract_state: TrainState


def make_program(
    model: Model,
    optimizer: optax.GradientTransformation,
    config: TrainingConfig,
    mesh: Mesh,
    rules: ShardingRules,
) -> TrainingProgram:
    """Make the program of a run on a mesh.

    Raises:
        InputError: the parameters do not fit the mesh or the rules.
    """
    trained = find_trained(
        abstract_trained_model(model, config.lora), frozen=config.frozen, lora=config.lora
    )
    make_state = functools.partial(
        init_state,
        model,
        optimizer,
        loss_scale=config.loss_scale,
        lora=config.lora,
        trained=trained,
    )
    abstract_state = placed_shapes(jax.eval_shape(make_state, jax.random.key(0)), mesh, rules)
    shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract_state)
    loss_function = make_loss_function(
        model,
        label_smoothing=config.label_smoothing,
        vocab_chunks=config.vocab_chunks,
        logits_dtype=config.logits_dtype,
    )
    train_step = make_train_step(
        lambda params, batch, key: loss_function(merge_adapters(params, config.lora), batch, key),
        optimizer,
        mesh=mesh,
        rules=rules,
        accumulation_steps=config.accumulation_steps,
        loss_scale=config.loss_scale,
        trained=trained,
    )
    return TrainingProgram(
        init_state=jax.jit(make_state, out_shardings=shardings),
        train_step=jax.jit(
            train_step,
            donate_argnums=0,
            out_shardings=(shardings, None),
            compiler_options=_COMPILER_OPTIONS if jax.default_backend() == "cpu" else None,
        ),
        abstract_state=abstract_state,
    )
