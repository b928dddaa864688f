"""Scaled dot-product attention and multi-head attention (section 3.2 of arXiv 1706.03762)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from flax_transformer.array_types import Array, Bool, Float, Int, Key
from flax_transformer.nn.dropout import dropout
from flax_transformer.nn.kv_cache import KeyValues, as_key_values, write_key_values
from flax_transformer.nn.linear import Linear
from flax_transformer.nn.products import einsum
from flax_transformer.parallel.activation_sharding import constrain


def masked_softmax(
    logits: Float[Array, "B N T S"], mask: Bool[Array, "#B #N #T #S"] | None
) -> Float[Array, "B N T S"]:
    """Softmax over the keys that ``mask`` allows, in float32; zeros where it allows none.

    >>> masked_softmax(jnp.zeros((1, 1, 2, 2)), jnp.array([[[[True, False], [False, False]]]]))
    Array([[[[1., 0.],
             [0., 0.]]]], dtype=float32)
    """
    logits = logits.astype(jnp.float32)
    if mask is None:
        return jax.nn.softmax(logits)
    # The lowest finite number instead of -inf: a row without a key must not become NaN.
    weights = jax.nn.softmax(jnp.where(mask, logits, jnp.finfo(jnp.float32).min))
    return jnp.where(mask, weights, 0.0)


def attention_weights(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S N H"],
    mask: Bool[Array, "#B #N #T #S"] | None = None,
    *,
    product_dtype: DTypeLike | None = None,
) -> Float[Array, "B N T S"]:
    """Return ``softmax(Q Kᵀ / √H)``, the weights of equation 1, float32."""
    scale = query.shape[-1] ** -0.5
    logits = einsum(
        "btnh,bsnh->bnts",
        query * scale,
        key,
        dtype=product_dtype or query.dtype,
        result_dtype=jnp.float32,
    )
    return masked_softmax(logits, mask)


def dot_product_attention(
    query: Float[Array, "B T N H"],
    key: Float[Array, "B S N H"],
    value: Float[Array, "B S N H"],
    mask: Bool[Array, "#B #N #T #S"] | None = None,
    *,
    dropout_rate: float = 0.0,
    dropout_key: Key[Array, ""] | None = None,
    product_dtype: DTypeLike | None = None,
) -> Float[Array, "B T N H"]:
    """Return ``softmax(Q Kᵀ / √H) V`` (equation 1), head by head.

    The softmax is taken in float32 and the result has the dtype of ``value``.

    Args:
        query: one vector for each position and head that attends.
        key: one vector for each position and head that is attended to.
        value: what is averaged.
        mask: True where a query may attend to a key; a query that may attend nowhere gets zeros.
        dropout_rate: of the weights; needs ``dropout_key``.
        dropout_key: typed random key; None for no dropout.
        product_dtype: of the operands of both products; None for those of ``query`` and ``value``.

    >>> ones = jnp.ones((1, 3, 2, 5))
    >>> bool((dot_product_attention(ones, ones, ones) == 1.0).all())
    True
    """
    weights = attention_weights(query, key, mask, product_dtype=product_dtype)
    if dropout_key is not None:
        weights = dropout(weights, dropout_rate, dropout_key)
    return einsum(
        "bnts,bsnh->btnh",
        weights,
        value,
        dtype=product_dtype or value.dtype,
        result_dtype=value.dtype,
    )


def cached_attention(
    query: Float[Array, "B W N H"],
    cache: KeyValues,
    mask: Bool[Array, "#B 1 #W S"] | None,
) -> Float[Array, "B W N H"]:
    """Attend from the W rows of a beam to a cache that they share; see :class:`KeyValues`."""
    scale = query.shape[-1] ** -0.5
    logits = jnp.einsum(
        "bwnh,bnhs->bnws", query * scale, cache.keys, preferred_element_type=jnp.float32
    )
    weights = masked_softmax(logits, mask).astype(cache.values.dtype)
    # Asked for as "->bwnh" directly, the product leaves the fast path of XLA's CPU backend.
    return jnp.einsum("bnws,bnsh->bnwh", weights, cache.values).transpose(0, 2, 1, 3)


class MultiHeadAttention(nn.Module):
    """Attention of several heads side by side: ``Concat(head_1, …, head_N) W_O``.

    The projections have no biases, as in the paper; a bias on the keys would change nothing, since
    it adds the same to every logit of a softmax.

    Attributes:
        num_heads: number of heads, N.
        head_dim: size of each head, H.
        model_dim: size of the result, D.
        dropout_rate: of the attention weights.
        dtype: of the result and of queries, keys and values; the softmax is float32.
        product_dtype: of the operands of matrix products.
    """

    num_heads: int
    head_dim: int
    model_dim: int
    dropout_rate: float = 0.0
    dtype: DTypeLike = jnp.float32
    product_dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Declare the four projections: three ``[D, N, H]`` and ``[N, H, D]``."""

        def project_to_heads() -> Linear:
            return Linear(
                (self.num_heads, self.head_dim),
                dtype=self.dtype,
                product_dtype=self.product_dtype,
            )

        self.query = project_to_heads()
        self.key = project_to_heads()
        self.value = project_to_heads()
        self.output = Linear(
            (self.model_dim,),
            num_in_axes=2,
            dtype=self.dtype,
            product_dtype=self.product_dtype,
        )

    def __call__(
        self,
        queries: Float[Array, "B T D"],
        keys_values: Float[Array, "B S D"],
        mask: Bool[Array, "#B #N #T #S"] | None = None,
        *,
        deterministic: bool,
    ) -> Float[Array, "B T D"]:
        """Attend from ``queries`` to ``keys_values``: self-attention where both are the same."""
        drop = self.dropout_rate > 0.0 and not deterministic
        attended = dot_product_attention(
            constrain(self.query(queries), "batch", "length", "heads", "_"),
            constrain(self.key(keys_values), "batch", "length", "heads", "_"),
            constrain(self.value(keys_values), "batch", "length", "heads", "_"),
            mask,
            dropout_rate=self.dropout_rate,
            dropout_key=self.make_rng("dropout") if drop else None,
            product_dtype=self.product_dtype,
        )
        return self.output(constrain(attended, "batch", "length", "heads", "_"))

    def make_key_values(self, keys_values: Float[Array, "B S D"]) -> KeyValues:
        """Project what is attended to at every step, once."""
        return as_key_values(self.key(keys_values), self.value(keys_values))

    def attend_to_cache(
        self,
        queries: Float[Array, "B W D"],
        cache: KeyValues,
        mask: Bool[Array, "#B 1 #W S"] | None,
    ) -> Float[Array, "B W D"]:
        """Attend from one position of each row of a beam to ``cache``."""
        return self.output(cached_attention(self.query(queries), cache, mask))

    def extend_cache(
        self, inputs: Float[Array, "B W D"], cache: KeyValues, index: Int[Array, ""]
    ) -> KeyValues:
        """Write the keys and values of the position that step ``index`` computes."""
        return write_key_values(cache, self.key(inputs), self.value(inputs), index)
