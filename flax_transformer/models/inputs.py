"""What every model makes of its tokens before the first layer reads them."""

import jax.numpy as jnp

from flax_transformer.array_types import Array, Float, Int
from flax_transformer.errors import InputError
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.nn.dropout import Dropout
from flax_transformer.nn.embedding import Embedding
from flax_transformer.nn.normalization import LayerNorm, RMSNorm, make_norm
from flax_transformer.nn.positions import LearnedPositions, SinusoidalPositions
from flax_transformer.parallel.activation_sharding import constrain


def make_embedding(config: TransformerConfig, vocab_size: int) -> Embedding:
    """Make the table of the vectors of ``vocab_size`` tokens."""
    return Embedding(vocab_size, config.model_dim, config.scale_embedding, config.compute_dtype)


def make_positions(config: TransformerConfig) -> SinusoidalPositions | LearnedPositions | None:
    """Make the encoding of positions that is added to embeddings; None where none is."""
    match config.position_encoding:
        case "sinusoidal":
            return SinusoidalPositions(
                config.max_positions, config.model_dim, config.sinusoid_layout
            )
        case "learned":
            return LearnedPositions(config.max_positions, config.model_dim, config.position_offset)
        case "rotary" | "relative":
            return None


def make_embedding_norm(config: TransformerConfig) -> LayerNorm | RMSNorm | None:
    """Make the normalisation of the first layer's input; None where there is none."""
    return make_norm(config.norm, config.norm_epsilon) if config.embedding_norm else None


def positions_of(
    tokens: Int[Array, "B T"], positions: Int[Array, "B T"] | None, *, limit: int | None
) -> Int[Array, "#B T"]:
    """Return ``positions``, or, where there are none, those counted from the row's start.

    Raises:
        InputError: a row is longer than ``limit``, which the config calls ``max_positions``.
    """
    length = tokens.shape[1]
    if limit is not None and length > limit:
        raise InputError(
            f"a row must be at most max_positions = {limit} tokens long, got {length}."
        )
    return jnp.arange(length)[None] if positions is None else positions


def sum_inputs(
    embedded: Float[Array, "B T D"],
    positions: Int[Array, "#B T"],
    *,
    position_encoding: SinusoidalPositions | LearnedPositions | None,
    norm: LayerNorm | RMSNorm | None,
    dropout: Dropout,
    deterministic: bool,
) -> Float[Array, "B T D"]:
    """Return what the first layer reads: embeddings with positions, normalised, with dropout.

    Args:
        embedded: embedded tokens.
        positions: of the tokens.
        position_encoding: what is added for the positions; None for nothing.
        norm: normalisation of the sum; None for none.
        dropout: of the result.
        deterministic: without dropout.
    """
    states = embedded
    if position_encoding is not None:
        states = states + position_encoding(positions).astype(states.dtype)
    states = constrain(states, "batch", "state_length", "_")
    if norm is not None:
        states = norm(states)
    return dropout(states, deterministic=deterministic)
