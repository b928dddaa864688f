"""Who may attend to whom, described without a table of pairs."""

import dataclasses
import functools

import jax
import jax.numpy as jnp

from flax_transformer.array_types import Array, Bool, Int
from flax_transformer.nn.block_sparse_pattern import (
    NO_SPARSITY,
    BlockSparseConfig,
    block_sparse_mask,
)
from flax_transformer.nn.masks import make_causal_mask, make_padding_mask, make_segment_mask


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class AttentionMask:
    """A query may attend to the keys that all conditions allow; there may be none of them.

    Attributes:
        causal: query t attends to the keys up to and including t.
        sparsity: queries attend to the keys of some blocks only.
        query_segment_ids: queries attend to the keys of their segment only; needs those of keys.
        key_segment_ids: no query attends to segment 0, padding.
        pairs: True where a query may attend to a key.
    """

    causal: bool = dataclasses.field(default=False, metadata={"static": True})
    sparsity: BlockSparseConfig = dataclasses.field(default=NO_SPARSITY, metadata={"static": True})
    query_segment_ids: Int[Array, "B T"] | None = None
    key_segment_ids: Int[Array, "B S"] | None = None
    pairs: Bool[Array, "#B #N #T #S"] | None = None

    def dense(self, length: int) -> Bool[Array, "#B #N #T #S"] | None:
        """Return the mask as an array that broadcasts to ``[B, N, T, S]``; None for everything.

        Args:
            length: number of queries, T; if ``causal`` or sparse, also of keys.

        >>> AttentionMask(causal=True, key_segment_ids=jnp.array([[0, 1]])).dense(2)[0, 0]
        Array([[False, False],
               [False,  True]], dtype=bool)
        """
        conditions = [] if self.pairs is None else [self.pairs]
        if self.key_segment_ids is not None:
            if self.query_segment_ids is None:
                conditions.append(make_padding_mask(self.key_segment_ids != 0))
            else:
                conditions.append(make_segment_mask(self.query_segment_ids, self.key_segment_ids))
        if self.causal:
            conditions.append(make_causal_mask(length))
        if self.sparsity.block_size:
            pattern = block_sparse_mask(self.sparsity, length, causal=self.causal)
            conditions.append(jnp.array(pattern))
        return functools.reduce(jnp.logical_and, conditions) if conditions else None


def as_attention_mask(
    mask: AttentionMask | Bool[Array, "#B #N #T #S"] | None,
) -> AttentionMask:
    """Return a description of a mask that may be an array; None allows everything."""
    return mask if isinstance(mask, AttentionMask) else AttentionMask(pairs=mask)
