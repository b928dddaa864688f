"""All that a training step changes."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from flax_transformer.array_types import Array, Int, Key, Parameters, UInt32
from flax_transformer.models.make_model import Model
from flax_transformer.models.parameters import init_parameters
from flax_transformer.training.guard import Guard, LossScaleConfig, init_guard


class TrainState(flax.struct.PyTreeNode):
    """The parameters and what is needed to go on training them.

    Attributes:
        step: number of steps made, those counted whose update was left out.
        params: the model's parameters.
        optimizer_state: of the Optax optimizer.
        dropout_key: raw data of the key that each step's dropout key is folded from.
        guard: what was left out, and the scale of the loss.
    """

    step: Int[Array, ""]
    params: Parameters
    optimizer_state: Any
    dropout_key: UInt32[Array, "2"]
    guard: Guard


def init_state(
    model: Model,
    optimizer: optax.GradientTransformation,
    key: Key[Array, ""],
    *,
    loss_scale: LossScaleConfig = LossScaleConfig(),
) -> TrainState:
    """Make the state before the first step; a function of ``key`` alone."""
    params_key, dropout_key = jax.random.split(key)
    params = init_parameters(model, params_key)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        # Gradients are float32, and so will be what is averaged of them.
        optimizer_state=optimizer.init(jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)),
        dropout_key=jax.random.key_data(dropout_key),
        guard=init_guard(loss_scale),
    )
