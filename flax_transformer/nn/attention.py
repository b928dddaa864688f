"""Multi-head attention (section 3.2.2 of arXiv 1706.03762)."""

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from flax_transformer.array_types import Array, Bool, Float, Int
from flax_transformer.nn.attention_implementations import AttentionImplementation, attend
from flax_transformer.nn.attention_mask import AttentionMask, as_attention_mask
from flax_transformer.nn.dot_product import masked_softmax
from flax_transformer.nn.kv_cache import KeyValues, as_key_values, write_key_values
from flax_transformer.nn.linear import Linear
from flax_transformer.nn.rotary import RotaryConfig, rotate
from flax_transformer.parallel.activation_sharding import constrain


def cached_attention_weights(
    query: Float[Array, "B W N H"],
    keys: Float[Array, "B K H S"],
    mask: Bool[Array, "#B 1 #W S"] | None,
    *,
    bias: Float[Array, "#B N #W S"] | None = None,
    scale: float | None = None,
) -> Float[Array, "B N W S"]:
    """Return the weights with which the W rows of a beam attend to a cache that they share."""
    batch_size, beam_size, num_heads, head_dim = query.shape
    num_key_value_heads, num_slots = keys.shape[1], keys.shape[3]
    query = query * (head_dim**-0.5 if scale is None else scale)
    # Heads that share keys are further rows of the same product.
    grouped = query.transpose(0, 2, 1, 3).reshape(batch_size, num_key_value_heads, -1, head_dim)
    logits = jnp.einsum("bkgh,bkhs->bkgs", grouped, keys, preferred_element_type=jnp.float32)
    logits = logits.reshape(batch_size, num_heads, beam_size, num_slots)
    return masked_softmax(logits, mask, bias)


def cached_attention(
    query: Float[Array, "B W N H"],
    cache: KeyValues,
    mask: Bool[Array, "#B 1 #W S"] | None,
    *,
    bias: Float[Array, "#B N #W S"] | None = None,
    scale: float | None = None,
) -> Float[Array, "B W N H"]:
    """Attend from the W rows of a beam to a cache that they share; see :class:`KeyValues`."""
    batch_size, beam_size, num_heads, head_dim = query.shape
    num_key_value_heads, num_slots = cache.values.shape[1:3]
    weights = cached_attention_weights(query, cache.keys, mask, bias=bias, scale=scale)
    weights = weights.astype(cache.values.dtype)
    grouped = weights.reshape(batch_size, num_key_value_heads, -1, num_slots)
    # Asked for with W before N directly, the product leaves the fast path of XLA's CPU backend.
    attended = jnp.einsum("bkgs,bksh->bkgh", grouped, cache.values)
    return attended.reshape(batch_size, num_heads, beam_size, head_dim).transpose(0, 2, 1, 3)


class MultiHeadAttention(nn.Module):
    """Attention of several heads side by side: ``Concat(head_1, …, head_N) W_O``.

    The paper's projections have no biases; one on the keys changes nothing, since it adds the same
    to every logit of a softmax, but with rotary positions.

    Attributes:
        num_heads: number of heads, N.
        head_dim: size of each head, H.
        model_dim: size of the result, D.
        num_key_value_heads: heads of keys and values, K, of which each serves N / K query heads
            (grouped-query attention, arXiv 2305.13245); None for N.
        use_bias: add biases to all four projections.
        scale: of the logits; None for ``1 / √H``.
        rotary: of rotary positions (:func:`.rotary.rotate`); None without them.
        implementation: what computes attention; a cache is always attended to by ``"xla"``.
        dropout_rate: of the attention weights.
        dtype: of the result and of queries, keys and values; the softmax is float32.
        product_dtype: of the operands of matrix products.
    """

    num_heads: int
    head_dim: int
    model_dim: int
    num_key_value_heads: int | None = None
    use_bias: bool = False
    scale: float | None = None
    rotary: RotaryConfig | None = None
    implementation: AttentionImplementation = "xla"
    dropout_rate: float = 0.0
    dtype: DTypeLike = jnp.float32
    product_dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Declare the four projections: three ``[D, heads, H]`` and ``[N, H, D]``."""

        def project_to_heads(num_heads: int) -> Linear:
            return Linear(
                (num_heads, self.head_dim),
                use_bias=self.use_bias,
                dtype=self.dtype,
                product_dtype=self.product_dtype,
            )

        num_key_value_heads = self.num_key_value_heads or self.num_heads
        self.query = project_to_heads(self.num_heads)
        self.key = project_to_heads(num_key_value_heads)
        self.value = project_to_heads(num_key_value_heads)
        self.output = Linear(
            (self.model_dim,),
            num_in_axes=2,
            use_bias=self.use_bias,
            dtype=self.dtype,
            product_dtype=self.product_dtype,
        )

    def __call__(
        self,
        queries: Float[Array, "B T D"],
        keys_values: Float[Array, "B S D"],
        mask: AttentionMask | Bool[Array, "#B #N #T #S"] | None = None,
        *,
        bias: Float[Array, "#B #N #T #S"] | None = None,
        positions: Int[Array, "#B T"] | None = None,
        deterministic: bool,
    ) -> Float[Array, "B T D"]:
        """Attend from ``queries`` to ``keys_values``: self-attention where both are the same.

        Args:
            queries: states that attend.
            keys_values: states that are attended to.
            mask: True where a query may attend to a key, or a description of that.
            bias: added to the logits.
            positions: of self-attention with rotary positions; None counts from the row's start.
            deterministic: without dropout.
        """
        drop = self.dropout_rate > 0.0 and not deterministic
        attended = attend(
            self.implementation,
            self._project(self.query, queries, positions),
            self._project(self.key, keys_values, positions),
            constrain(self.value(keys_values), "batch", "length", "heads", "_"),
            as_attention_mask(mask),
            bias=bias,
            scale=self.scale,
            dropout_rate=self.dropout_rate,
            dropout_key=self.make_rng("dropout") if drop else None,
            product_dtype=self.product_dtype,
        )
        return self.output(constrain(attended, "batch", "length", "heads", "_"))

    def make_key_values(
        self, keys_values: Float[Array, "B S D"], positions: Int[Array, "#B S"] | None = None
    ) -> KeyValues:
        """Project what is attended to at every step, once."""
        return as_key_values(
            self._project(self.key, keys_values, positions), self.value(keys_values)
        )

    def attend_to_cache(
        self,
        queries: Float[Array, "B W D"],
        cache: KeyValues,
        mask: Bool[Array, "#B 1 #W S"] | None,
        *,
        bias: Float[Array, "#B N #W S"] | None = None,
        positions: Int[Array, "#B W"] | None = None,
    ) -> Float[Array, "B W D"]:
        """Attend from one position of each row of a beam to ``cache``."""
        query = self._project(self.query, queries, positions)
        return self.output(cached_attention(query, cache, mask, bias=bias, scale=self.scale))

    def weigh_cache(
        self,
        queries: Float[Array, "B W D"],
        cache: KeyValues,
        mask: Bool[Array, "#B 1 #W S"] | None,
    ) -> Float[Array, "B N W S"]:
        """Return the weights of :meth:`attend_to_cache`, float32."""
        query = self._project(self.query, queries, None)
        return cached_attention_weights(query, cache.keys, mask, scale=self.scale)

    def extend_cache(
        self,
        inputs: Float[Array, "B W D"],
        cache: KeyValues,
        start: Int[Array, ""],
        *,
        positions: Int[Array, "#B W"] | None = None,
    ) -> KeyValues:
        """Write the keys and values of one position of each row to the slots from ``start``."""
        key = self._project(self.key, inputs, positions)
        return write_key_values(cache, key, self.value(inputs), start)

    def _project(
        self, project: Linear, states: Float[Array, "B T D"], positions: Int[Array, "#B T"] | None
    ) -> Float[Array, "B T heads H"]:
        """Return queries or keys, rotated to their positions where that is asked for."""
        projected = project(states)
        if self.rotary is not None:
            if positions is None:
                positions = jnp.arange(states.shape[1])[None]
            projected = rotate(projected, positions, self.rotary)
        return constrain(projected, "batch", "length", "heads", "_")
