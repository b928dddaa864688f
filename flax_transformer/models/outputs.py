"""What every model makes of its final states."""

from flax_transformer.array_types import Array, Float
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.nn.embedding import OutputProjection, score_tokens


def scale_states(states: Float[Array, "*B D"], config: TransformerConfig) -> Float[Array, "*B D"]:
    """Divide final states by √D where the config says so (T5, arXiv 1910.10683, with one table)."""
    return states * config.model_dim**-0.5 if config.scale_output else states


def make_logits(
    states: Float[Array, "*B D"], projection: OutputProjection, config: TransformerConfig
) -> Float[Array, "*B V"]:
    """Return the float32 logits of the token after each state, or at it."""
    product_dtype = config.product_dtype or config.compute_dtype
    return score_tokens(states, projection, product_dtype=product_dtype)
