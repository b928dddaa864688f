"""All that a training step changes."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from flax_transformer.array_types import Array, Int, Key, Parameters, UInt32
from flax_transformer.models.encoder_decoder import EncoderDecoder


class TrainState(flax.struct.PyTreeNode):
    """The parameters and what is needed to go on training them.

    Attributes:
        step: number of updates made.
        params: the model's parameters, float32.
        optimizer_state: of the Optax optimizer.
        dropout_key: raw data of the key that each step's dropout key is folded from.
    """

    step: Int[Array, ""]
    params: Parameters
    optimizer_state: Any
    dropout_key: UInt32[Array, "2"]


def init_state(
    model: EncoderDecoder, optimizer: optax.GradientTransformation, key: Key[Array, ""]
) -> TrainState:
    """Make the state before the first step; a function of ``key`` alone."""
    params_key, dropout_key = jax.random.split(key)
    tokens = jnp.zeros((1, 1), jnp.int32)
    params = model.init(params_key, tokens, tokens)["params"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        optimizer_state=optimizer.init(params),
        dropout_key=jax.random.key_data(dropout_key),
    )
