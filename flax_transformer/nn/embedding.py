"""Token embeddings, shared with the output projection where the model ties them."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from flax_transformer.array_types import Array, Float, Int
from flax_transformer.nn.products import einsum
from flax_transformer.parallel.activation_sharding import constrain


def take_rows(
    table: Float[Array | np.ndarray, "V D"], indices: Int[Array, "*B"]
) -> Float[Array, "*B D"]:
    """Look rows up; an index outside the table gives NaN, where clamping would hide it.

    >>> take_rows(jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.array([1, 2, -1]))
    Array([[ 3.,  4.],
           [nan, nan],
           [nan, nan]], dtype=float32)
    """
    return jnp.asarray(table).at[indices].get(mode="fill", wrap_negative_indices=False)


class OutputProjection(NamedTuple):
    """What final states are scored with.

    Attributes:
        table: a vector for each token.
        bias: a number for each token; None without.
    """

    table: Float[Array, "V D"]
    bias: Float[Array, " V"] | None = None


def score_tokens(
    states: Float[Array, "*B D"],
    projection: OutputProjection,
    *,
    product_dtype: DTypeLike = jnp.float32,
    logits_dtype: DTypeLike = jnp.float32,
) -> Float[Array, "*B V"]:
    """Return the product of each state with every token's vector, plus the bias: the logits.

    Args:
        states: final states of a decoder.
        projection: vectors and biases of the tokens.
        product_dtype: of the product's operands.
        logits_dtype: of the result.

    >>> score_tokens(jnp.ones((1, 2)), OutputProjection(jnp.array([[1.0, 2.0], [3.0, 4.0]])))
    Array([[3., 7.]], dtype=float32)
    """
    batch = "uwxyz"[: states.ndim - 1]
    logits = einsum(
        f"{batch}d,vd->{batch}v",
        states,
        projection.table,
        dtype=product_dtype,
        result_dtype=logits_dtype,
    )
    return logits if projection.bias is None else logits + projection.bias.astype(logits.dtype)


class Embedding(nn.Module):
    """A table of token vectors, which :func:`score_tokens` may read, too.

    Entries start from a normal distribution of variance 1/D, so that states scaled by √D (section
    3.4 of arXiv 1706.03762) have unit variance beside the position encodings, and logits of a
    normalised state have unit variance too.

    Attributes:
        vocab_size: number of tokens.
        dim: size of a token's vector.
        scale_by_sqrt_dim: multiply embeddings by √D.
        dtype: of the embeddings.
    """

    vocab_size: int
    dim: int
    scale_by_sqrt_dim: bool = True
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Declare the table."""
        self.embedding = self.param(
            "embedding", nn.initializers.normal(self.dim**-0.5), (self.vocab_size, self.dim)
        )

    def __call__(self, tokens: Int[Array, "*B"]) -> Float[Array, "*B D"]:
        """Embed tokens; an id outside the vocabulary gives NaN."""
        # Rows are looked up where their positions lie: without this, XLA looks parts of rows up for
        # all positions and then moves them about.
        table = constrain(self.embedding, "vocab", "_")
        embedded = take_rows(table, tokens)
        if self.scale_by_sqrt_dim:
            embedded = embedded * jnp.sqrt(jnp.float32(self.dim))
        return embedded.astype(self.dtype)
