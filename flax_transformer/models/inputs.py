"""What every model makes of its tokens before the first layer reads them."""

import jax.numpy as jnp

from flax_transformer.array_types import Array, Int
from flax_transformer.errors import InputError
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.nn.embedding import Embedding
from flax_transformer.nn.positions import LearnedPositions, SinusoidalPositions


def make_embedding(config: TransformerConfig, vocab_size: int) -> Embedding:
    """Make the table of the vectors of ``vocab_size`` tokens."""
    return Embedding(vocab_size, config.model_dim, config.scale_embedding, config.compute_dtype)


def make_positions(config: TransformerConfig) -> SinusoidalPositions | LearnedPositions:
    """Make the encoding of positions."""
    if config.position_encoding == "learned":
        return LearnedPositions(config.max_positions, config.model_dim)
    return SinusoidalPositions(config.max_positions, config.model_dim, config.sinusoid_layout)


def positions_of(
    tokens: Int[Array, "B T"], positions: Int[Array, "B T"] | None, *, max_positions: int
) -> Int[Array, "#B T"]:
    """Return ``positions``, or, where there are none, those counted from the row's start.

    Raises:
        InputError: a row is longer than ``max_positions``.
    """
    length = tokens.shape[1]
    if length > max_positions:
        raise InputError(
            f"a row must be at most max_positions = {max_positions} tokens long, got {length}."
        )
    return jnp.arange(length)[None] if positions is None else positions
