"""A model's parameters: the first ones, their shapes, and their number."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from flax_transformer.array_types import Array, Int, Key, Parameters
from flax_transformer.models.encoder_decoder import EncoderDecoder
from flax_transformer.models.encoder_only import EncoderOnly
from flax_transformer.models.make_model import Model


def init_parameters(model: Model, key: Key[Array, ""]) -> Parameters:
    """Draw a model's first parameters, of the config's ``param_dtype``; a function of the key."""
    # One token is enough: no parameter depends on a length, nor on the program for attention, of
    # which some refuse such a length.
    model = type(model)(dataclasses.replace(model.config, attention_implementation="xla"))
    tokens = jnp.zeros((1, 1), jnp.int32)
    match model:
        case EncoderDecoder():
            params = model.init(key, tokens, tokens)["params"]
        case EncoderOnly():
            params = model.init(key, tokens, method=_use_all_of_encoder)["params"]
        case _:
            params = model.init(key, tokens)["params"]
    return jax.tree.map(lambda leaf: leaf.astype(model.config.param_dtype), params)


def abstract_parameters(model: Model) -> Parameters:
    """Return the tree of the parameters' shapes and dtypes; computes nothing."""
    return jax.eval_shape(lambda: init_parameters(model, jax.random.key(0)))


def num_parameters(params: Parameters) -> int:
    """Count the numbers in a tree of arrays or of shapes.

    >>> num_parameters({"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)})
    9
    """
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def _use_all_of_encoder(model: EncoderOnly, tokens: Int[Array, "B S"]) -> None:
    """Use a pooler beside the head, too, so that it gets parameters."""
    model(tokens)
    if model.config.pooler != "none":
        model.pool(model.encode(tokens))
