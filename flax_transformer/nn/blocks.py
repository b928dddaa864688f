"""Encoder and decoder layers: sub-layers in residual connections (figure 1 of arXiv 1706.03762)."""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from flax_transformer.array_types import Array, Bool, Float, Int
from flax_transformer.nn.attention import MultiHeadAttention
from flax_transformer.nn.dropout import Dropout
from flax_transformer.nn.feed_forward import Activation, FeedForward
from flax_transformer.nn.kv_cache import KeyValues
from flax_transformer.nn.normalization import LayerNorm


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerConfig:
    """What the layers of an encoder or decoder are made of.

    Attributes:
        model_dim: size of the states, D.
        num_heads: number of attention heads, N.
        head_dim: size of each head, H.
        feed_forward_dim: size of the hidden layer of the feed-forward network, F.
        activation: of the feed-forward network.
        gated_feed_forward: see :class:`FeedForward`.
        pre_norm: normalise what a sub-layer reads, ``x + f(norm(x))`` (Xiong et al., 2020, arXiv
            2002.04745), instead of what it returns, ``norm(x + f(x))``, as in the paper.
        norm_epsilon: of the layer normalisation.
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
    activation: Activation = "relu"
    gated_feed_forward: bool = False
    pre_norm: bool = False
    norm_epsilon: float = 1e-6
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    feed_forward_dropout_rate: float = 0.0
    dtype: DTypeLike = jnp.float32
    product_dtype: DTypeLike = jnp.float32


def _attention(config: LayerConfig) -> MultiHeadAttention:
    return MultiHeadAttention(
        num_heads=config.num_heads,
        head_dim=config.head_dim,
        model_dim=config.model_dim,
        dropout_rate=config.attention_dropout_rate,
        dtype=config.dtype,
        product_dtype=config.product_dtype,
    )


def _feed_forward(config: LayerConfig) -> FeedForward:
    return FeedForward(
        hidden_dim=config.feed_forward_dim,
        activation=config.activation,
        gated=config.gated_feed_forward,
        dropout_rate=config.feed_forward_dropout_rate,
        dtype=config.dtype,
        product_dtype=config.product_dtype,
    )


class Residual(nn.Module):
    """Add & Norm around a sub-layer, with dropout on the sub-layer's output (section 5.4).

    Attributes:
        pre_norm: see :class:`LayerConfig`.
        norm_epsilon: of the layer normalisation.
        dropout_rate: of the sub-layer's output.
    """

    pre_norm: bool
    norm_epsilon: float
    dropout_rate: float

    def setup(self) -> None:
        """Declare the normalisation and the dropout."""
        self.norm = LayerNorm(self.norm_epsilon)
        self.dropout = Dropout(self.dropout_rate)

    def __call__(
        self,
        inputs: Float[Array, "*B D"],
        sublayer: Callable[[Float[Array, "*B D"]], Float[Array, "*B D"]],
        *,
        deterministic: bool,
    ) -> Float[Array, "*B D"]:
        """Return ``norm(x + dropout(f(x)))``, or ``x + dropout(f(norm(x)))`` with ``pre_norm``."""
        if self.pre_norm:
            outputs = sublayer(self.norm(inputs))
            return inputs + self.dropout(outputs, deterministic=deterministic)
        outputs = self.dropout(sublayer(inputs), deterministic=deterministic)
        return self.norm(inputs + outputs)


def _residual(config: LayerConfig) -> Residual:
    return Residual(config.pre_norm, config.norm_epsilon, config.dropout_rate)


class EncoderLayer(nn.Module):
    """Self-attention, then the feed-forward network."""

    config: LayerConfig

    def setup(self) -> None:
        """Declare the sub-layers."""
        self.self_attention = _attention(self.config)
        self.self_attention_residual = _residual(self.config)
        self.feed_forward = _feed_forward(self.config)
        self.feed_forward_residual = _residual(self.config)

    def __call__(
        self,
        states: Float[Array, "B S D"],
        mask: Bool[Array, "#B #N #S S"] | None = None,
        *,
        deterministic: bool,
    ) -> Float[Array, "B S D"]:
        """Transform ``states``; ``mask`` says which positions each may attend to."""
        states = self.self_attention_residual(
            states,
            lambda x: self.self_attention(x, x, mask, deterministic=deterministic),
            deterministic=deterministic,
        )
        return self.feed_forward_residual(
            states,
            lambda x: self.feed_forward(x, deterministic=deterministic),
            deterministic=deterministic,
        )


class DecoderLayer(nn.Module):
    """Masked self-attention, attention to the encoder's output, then the feed-forward network."""

    config: LayerConfig

    def setup(self) -> None:
        """Declare the sub-layers."""
        self.self_attention = _attention(self.config)
        self.self_attention_residual = _residual(self.config)
        self.cross_attention = _attention(self.config)
        self.cross_attention_residual = _residual(self.config)
        self.feed_forward = _feed_forward(self.config)
        self.feed_forward_residual = _residual(self.config)

    def __call__(
        self,
        states: Float[Array, "B T D"],
        encoded: Float[Array, "B S D"],
        self_mask: Bool[Array, "#B #N T T"],
        cross_mask: Bool[Array, "#B #N #T S"] | None = None,
        *,
        deterministic: bool,
    ) -> Float[Array, "B T D"]:
        """Transform ``states``, reading ``encoded``; ``self_mask`` must be causal."""
        states = self.self_attention_residual(
            states,
            lambda x: self.self_attention(x, x, self_mask, deterministic=deterministic),
            deterministic=deterministic,
        )
        states = self.cross_attention_residual(
            states,
            lambda x: self.cross_attention(x, encoded, cross_mask, deterministic=deterministic),
            deterministic=deterministic,
        )
        return self.feed_forward_residual(
            states,
            lambda x: self.feed_forward(x, deterministic=deterministic),
            deterministic=deterministic,
        )

    def make_cross_key_values(self, encoded: Float[Array, "B S D"]) -> KeyValues:
        """Project the encoder's output for :meth:`step`, once a sentence."""
        return self.cross_attention.make_key_values(encoded)

    def step(
        self,
        states: Float[Array, "B W D"],
        self_cache: KeyValues,
        cross_cache: KeyValues,
        self_mask: Bool[Array, "B 1 W slots"],
        cross_mask: Bool[Array, "B 1 1 S"] | None,
        index: Int[Array, ""],
    ) -> tuple[Float[Array, "B W D"], KeyValues]:
        """Decode position ``index`` of the W hypotheses of each sentence; dropout is off.

        Returns the states and ``self_cache`` with this position written to it.
        """
        extended = self_cache

        def attend_to_past(x: Float[Array, "B W D"]) -> Float[Array, "B W D"]:
            nonlocal extended
            extended = self.self_attention.extend_cache(x, self_cache, index)
            return self.self_attention.attend_to_cache(x, extended, self_mask)

        states = self.self_attention_residual(states, attend_to_past, deterministic=True)
        states = self.cross_attention_residual(
            states,
            lambda x: self.cross_attention.attend_to_cache(x, cross_cache, cross_mask),
            deterministic=True,
        )
        states = self.feed_forward_residual(
            states, lambda x: self.feed_forward(x, deterministic=True), deterministic=True
        )
        return states, extended
