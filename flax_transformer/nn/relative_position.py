"""Relative position bias: a learned number for each head and distance (T5, arXiv 1910.10683)."""

import math

import flax.linen as nn
import jax.numpy as jnp

from flax_transformer.array_types import Array, Float, Int


def relative_bucket(
    distance: Int[Array, "*shape"], *, num_buckets: int, max_distance: int, bidirectional: bool
) -> Int[Array, "*shape"]:
    """Map distances to buckets: one each for the short ones, then ever wider ones.

    Half of the buckets hold one distance each; the others grow logarithmically up to
    ``max_distance``, and the last one holds all that is farther (section 2.1 of the paper).

    Args:
        distance: key position minus query position.
        num_buckets: buckets in all; an even number.
        max_distance: from here on all distances are in the last bucket, which begins before.
        bidirectional: half of the buckets are for keys after the query; otherwise those share
            bucket 0.

    >>> distances = jnp.array([0, -1, -7, -100, 3])
    >>> relative_bucket(distances, num_buckets=8, max_distance=20, bidirectional=True)
    Array([0, 1, 3, 3, 6], dtype=int32)
    >>> relative_bucket(distances, num_buckets=8, max_distance=20, bidirectional=False)
    Array([0, 1, 5, 7, 0], dtype=int32)
    """
    offset = jnp.zeros_like(distance)
    if bidirectional:
        num_buckets //= 2
        offset = jnp.where(distance > 0, num_buckets, 0)
        distance = jnp.abs(distance)
    else:
        distance = jnp.maximum(-distance, 0)
    num_exact = num_buckets // 2
    ratio = jnp.maximum(distance, 1).astype(jnp.float32) / num_exact
    far = num_exact + (
        jnp.log(ratio) / math.log(max_distance / num_exact) * (num_buckets - num_exact)
    ).astype(jnp.int32)
    far = jnp.minimum(far, num_buckets - 1)
    return (offset + jnp.where(distance < num_exact, distance, far)).astype(jnp.int32)


class RelativePositionBias(nn.Module):
    """The bias of attention logits by distance, shared by the layers of a stack.

    Attributes:
        num_heads: number of heads, N.
        num_buckets: see :func:`relative_bucket`.
        max_distance: see :func:`relative_bucket`.
        bidirectional: see :func:`relative_bucket`.
    """

    num_heads: int
    num_buckets: int
    max_distance: int
    bidirectional: bool

    @nn.compact
    def __call__(
        self, query_positions: Int[Array, "#B T"], key_positions: Int[Array, "#B S"]
    ) -> Float[Array, "#B N T S"]:
        """Return the float32 bias of each query, key and head."""
        table = self.param(
            "embedding", nn.initializers.normal(0.02), (self.num_buckets, self.num_heads)
        )
        buckets = relative_bucket(
            key_positions[:, None, :] - query_positions[:, :, None],
            num_buckets=self.num_buckets,
            max_distance=self.max_distance,
            bidirectional=self.bidirectional,
        )
        return table[buckets].astype(jnp.float32).transpose(0, 3, 1, 2)
