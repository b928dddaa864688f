"""All that a training step changes."""

from collections.abc import Collection, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax

from flax_transformer.array_types import Array, Int, Key, Parameters, UInt32
from flax_transformer.errors import InputError
from flax_transformer.models.make_model import Model
from flax_transformer.models.parameters import init_parameters
from flax_transformer.training.guard import Guard, LossScaleConfig, init_guard
from flax_transformer.training.lora import LoraConfig, add_adapters, take_adapters
from flax_transformer.training.trained_part import match_paths, split_parameters
from flax_transformer.tree_paths import flatten_tree


class TrainState(flax.struct.PyTreeNode):
    """The parameters and what is needed to go on training them.

    Attributes:
        step: number of steps made, those counted whose update was left out.
        params: the model's parameters, frozen or not, and adapters beside them, if there are any.
        optimizer_state: of the Optax optimizer, for what is trained.
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
    lora: LoraConfig = LoraConfig(),
    trained: Collection[str] | None = None,
) -> TrainState:
    """Make the state before the first step; what is random in it depends on ``key`` alone.

    Args:
        model: the model.
        optimizer: what will train it.
        key: of parameters and dropout.
        loss_scale: scaling of the loss.
        lora: the adapters to add.
        trained: paths of the parameters that are trained; None for all.
    """
    params_key, dropout_key = jax.random.split(key)
    params = init_trained_model(model, lora, params_key)
    trained_params, _ = split_parameters(params, trained)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        # Gradients are float32, and so will be what is averaged of them.
        optimizer_state=optimizer.init(
            jax.tree.map(lambda leaf: leaf.astype(jnp.float32), trained_params)
        ),
        dropout_key=jax.random.key_data(dropout_key),
        guard=init_guard(loss_scale),
    )


def init_trained_model(model: Model, lora: LoraConfig, key: Key[Array, ""]) -> Parameters:
    """Draw the first parameters of a model and of its adapters, if it shall have any."""
    return add_adapters(init_parameters(model, key), lora, jax.random.fold_in(key, 0))


def abstract_trained_model(model: Model, lora: LoraConfig) -> Parameters:
    """Return the shapes and dtypes of :func:`init_trained_model`; computes nothing."""
    return jax.eval_shape(lambda: init_trained_model(model, lora, jax.random.key(0)))


def find_trained(
    params: Parameters, *, frozen: Sequence[str] = (), lora: LoraConfig = LoraConfig()
) -> frozenset[str]:
    """Return the paths of what is trained of ``params``, which hold the adapters, if there are any.

    Args:
        params: arrays or shapes.
        frozen: regular expressions, looked for in the paths of what is not trained.
        lora: the adapters, of which there are none where something is ``frozen``.

    Raises:
        InputError: a pattern matches nothing, or nothing is left to train.

    >>> sorted(find_trained({"kernel": 1, "scale": 2}, frozen=["scale"]))
    ['kernel']
    """
    paths = frozenset(flatten_tree(params))
    if lora.rank:
        adapters = frozenset(flatten_tree(take_adapters(params)))
        return adapters | match_paths(paths, lora.trained, name="training.lora.trained")
    trained = paths - match_paths(paths, frozen, name="training.frozen")
    if not trained:
        raise InputError(f"training.frozen must leave something to train, got {list(frozen)}.")
    return trained
