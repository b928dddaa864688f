"""What is known of a model's parameters before they are made."""

import math

import jax
import jax.numpy as jnp

from flax_transformer.array_types import Parameters
from flax_transformer.models.encoder_decoder import EncoderDecoder


def abstract_parameters(model: EncoderDecoder) -> Parameters:
    """Return the tree of the parameters' shapes and dtypes; computes nothing."""
    tokens = jnp.zeros((1, 1), jnp.int32)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), tokens, tokens))
    return variables["params"]


def num_parameters(params: Parameters) -> int:
    """Count the numbers in a tree of arrays or of shapes.

    >>> num_parameters({"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)})
    9
    """
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))
