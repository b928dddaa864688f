"""What a layer of an encoder or decoder is made of."""

import dataclasses

import jax.numpy as jnp
from jax.typing import DTypeLike

from flax_transformer.nn.attention_implementations import AttentionImplementation
from flax_transformer.nn.feed_forward import Activation
from flax_transformer.nn.normalization import Normalization
from flax_transformer.nn.rotary import RotaryConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerConfig:
    """What the layers of an encoder or decoder are made of.

    Attributes:
        model_dim: size of the states, D.
        num_heads: number of attention heads, N.
        head_dim: size of each head, H.
        num_key_value_heads: heads of keys and values, K; see
            :class:`.attention.MultiHeadAttention`.
        attention_bias: biases of the projections of attention.
        attention_scale: of the logits of attention; None for ``1 / √H``.
        rotary: of rotary positions in self-attention; None without them.
        feed_forward_dim: size of the hidden layer of the feed-forward network, F.
        activation: of the feed-forward network.
        gated_feed_forward: see :class:`.feed_forward.FeedForward`.
        feed_forward_bias: biases of the feed-forward network.
        pre_norm: normalise what a sub-layer reads, ``x + f(norm(x))`` (Xiong et al., 2020, arXiv
            2002.04745), instead of what it returns, ``norm(x + f(x))``, as in the paper.
        norm: kind of normalisation.
        norm_epsilon: of the normalisation.
        attention_implementation: see :class:`.attention.MultiHeadAttention`.
        dropout_rate: of each sub-layer's output.
        attention_dropout_rate: of the attention weights.
        feed_forward_dropout_rate: of the hidden layer of the feed-forward network.
        dtype: of the states.
        product_dtype: of the operands of matrix products.
    """

    model_dim: int
    num_heads: int
    head_dim: int
    feed_forward_dim: int
    num_key_value_heads: int | None = None
    attention_bias: bool = False
    attention_scale: float | None = None
    rotary: RotaryConfig | None = None
    activation: Activation = "relu"
    gated_feed_forward: bool = False
    feed_forward_bias: bool = True
    pre_norm: bool = False
    norm: Normalization = "layer"
    norm_epsilon: float = 1e-6
    attention_implementation: AttentionImplementation = "xla"
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    feed_forward_dropout_rate: float = 0.0
    dtype: DTypeLike = jnp.float32
    product_dtype: DTypeLike = jnp.float32
