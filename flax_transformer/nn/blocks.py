"""Encoder and decoder layers: sub-layers in residual connections (figure 1 of arXiv 1706.03762)."""

from typing import NamedTuple

import flax.linen as nn

from flax_transformer.array_types import Array, Bool, Float, Int
from flax_transformer.nn.attention import MultiHeadAttention
from flax_transformer.nn.attention_mask import AttentionMask
from flax_transformer.nn.feed_forward import FeedForward
from flax_transformer.nn.kv_cache import KeyValues
from flax_transformer.nn.layer_config import LayerConfig
from flax_transformer.nn.residual import Residual
from flax_transformer.nn.rotary import RotaryConfig


def _attention(config: LayerConfig, rotary: RotaryConfig | None) -> MultiHeadAttention:
    return MultiHeadAttention(
        num_heads=config.num_heads,
        head_dim=config.head_dim,
        model_dim=config.model_dim,
        num_key_value_heads=config.num_key_value_heads,
        use_bias=config.attention_bias,
        scale=config.attention_scale,
        rotary=rotary,
        implementation=config.attention_implementation,
        dropout_rate=config.attention_dropout_rate,
        dtype=config.dtype,
        product_dtype=config.product_dtype,
    )


def _feed_forward(config: LayerConfig) -> FeedForward:
    return FeedForward(
        hidden_dim=config.feed_forward_dim,
        activation=config.activation,
        gated=config.gated_feed_forward,
        use_bias=config.feed_forward_bias,
        dropout_rate=config.feed_forward_dropout_rate,
        dtype=config.dtype,
        product_dtype=config.product_dtype,
    )


def _residual(config: LayerConfig) -> Residual:
    return Residual(config.pre_norm, config.norm, config.norm_epsilon, config.dropout_rate)


def _attend_to_past(
    attention: MultiHeadAttention,
    residual: Residual,
    states: Float[Array, "B W D"],
    cache: KeyValues,
    mask: Bool[Array, "B 1 W slots"],
    start: Int[Array, ""],
    bias: Float[Array, "#B N #W slots"] | None,
    positions: Int[Array, "#B W"] | None,
) -> tuple[Float[Array, "B W D"], KeyValues]:
    """Write this position to ``cache`` and let it attend to what is there."""
    extended = cache

    def attend(x: Float[Array, "B W D"]) -> Float[Array, "B W D"]:
        nonlocal extended
        extended = attention.extend_cache(x, cache, start, positions=positions)
        return attention.attend_to_cache(x, extended, mask, bias=bias, positions=positions)

    return residual(states, attend, deterministic=True), extended


class EncoderLayer(nn.Module):
    """Self-attention, then the feed-forward network; also a layer of a decoder without encoder."""

    config: LayerConfig

    def setup(self) -> None:
        """Declare the sub-layers."""
        self.self_attention = _attention(self.config, self.config.rotary)
        self.self_attention_residual = _residual(self.config)
        self.feed_forward = _feed_forward(self.config)
        self.feed_forward_residual = _residual(self.config)

    def __call__(
        self,
        states: Float[Array, "B S D"],
        mask: AttentionMask | Bool[Array, "#B #N #S S"] | None = None,
        *,
        bias: Float[Array, "#B N S S"] | None = None,
        positions: Int[Array, "#B S"] | None = None,
        deterministic: bool,
    ) -> Float[Array, "B S D"]:
        """Transform ``states``.

        Args:
            states: what is read.
            mask: True where a position may attend to another.
            bias: added to the logits of attention.
            positions: for rotary positions; None counts from the row's start.
            deterministic: without dropout.
        """
        states = self.self_attention_residual(
            states,
            lambda x: self.self_attention(
                x, x, mask, bias=bias, positions=positions, deterministic=deterministic
            ),
            deterministic=deterministic,
        )
        return self._feed_forward(states, deterministic=deterministic)

    def prefill(
        self,
        states: Float[Array, "B P D"],
        mask: Bool[Array, "#B #N #P P"],
        *,
        bias: Float[Array, "#B N P P"] | None = None,
        positions: Int[Array, "#B P"] | None = None,
    ) -> tuple[Float[Array, "B P D"], KeyValues]:
        """Read a whole prompt; return its states and what :meth:`step` attends to."""
        read: list[Float[Array, "B P D"]] = []

        def attend(x: Float[Array, "B P D"]) -> Float[Array, "B P D"]:
            read.append(x)
            return self.self_attention(
                x, x, mask, bias=bias, positions=positions, deterministic=True
            )

        states = self.self_attention_residual(states, attend, deterministic=True)
        key_values = self.self_attention.make_key_values(read[0], positions)
        return self._feed_forward(states, deterministic=True), key_values

    def step(
        self,
        states: Float[Array, "B W D"],
        cache: KeyValues,
        mask: Bool[Array, "B 1 W slots"],
        start: Int[Array, ""],
        *,
        bias: Float[Array, "#B N #W slots"] | None = None,
        positions: Int[Array, "#B W"] | None = None,
    ) -> tuple[Float[Array, "B W D"], KeyValues]:
        """Decode one position of the W hypotheses of each input; dropout is off.

        Returns the states and ``cache`` with this position written to the slots from ``start``.
        """
        states, cache = _attend_to_past(
            self.self_attention,
            self.self_attention_residual,
            states,
            cache,
            mask,
            start,
            bias,
            positions,
        )
        return self._feed_forward(states, deterministic=True), cache

    def _feed_forward(
        self, states: Float[Array, "B T D"], *, deterministic: bool
    ) -> Float[Array, "B T D"]:
        return self.feed_forward_residual(
            states,
            lambda x: self.feed_forward(x, deterministic=deterministic),
            deterministic=deterministic,
        )


class DecoderStep(NamedTuple):
    """What a layer of a decoder makes of one position of each hypothesis.

    Attributes:
        states: the layer's output.
        cache: keys and values of self-attention, with this position's.
        cross_weights: attention to the source, head by head.
    """

    states: Float[Array, "B W D"]
    cache: KeyValues
    cross_weights: Float[Array, "B N W S"]


class DecoderLayer(nn.Module):
    """Masked self-attention, attention to the encoder's output, then the feed-forward network."""

    config: LayerConfig

    def setup(self) -> None:
        """Declare the sub-layers."""
        self.self_attention = _attention(self.config, self.config.rotary)
        self.self_attention_residual = _residual(self.config)
        self.cross_attention = _attention(self.config, None)
        self.cross_attention_residual = _residual(self.config)
        self.feed_forward = _feed_forward(self.config)
        self.feed_forward_residual = _residual(self.config)

    def __call__(
        self,
        states: Float[Array, "B T D"],
        encoded: Float[Array, "B S D"],
        self_mask: AttentionMask | Bool[Array, "#B #N T T"],
        cross_mask: AttentionMask | Bool[Array, "#B #N #T S"] | None = None,
        *,
        bias: Float[Array, "#B N T T"] | None = None,
        positions: Int[Array, "#B T"] | None = None,
        deterministic: bool,
    ) -> Float[Array, "B T D"]:
        """Transform ``states``, reading ``encoded``.

        Args:
            states: what is transformed.
            encoded: the encoder's output.
            self_mask: of self-attention; must be causal.
            cross_mask: of attention to ``encoded``.
            bias: added to the logits of self-attention.
            positions: for rotary positions; None counts from the row's start.
            deterministic: without dropout.
        """
        states = self.self_attention_residual(
            states,
            lambda x: self.self_attention(
                x, x, self_mask, bias=bias, positions=positions, deterministic=deterministic
            ),
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
        start: Int[Array, ""],
        *,
        bias: Float[Array, "#B N #W slots"] | None = None,
        positions: Int[Array, "#B W"] | None = None,
    ) -> DecoderStep:
        """Decode one position of the W hypotheses of each sentence; dropout is off.

        Its keys and values are written to the slots of ``self_cache`` from ``start``.
        """
        states, self_cache = _attend_to_past(
            self.self_attention,
            self.self_attention_residual,
            states,
            self_cache,
            self_mask,
            start,
            bias,
            positions,
        )
        weights: list[Float[Array, "B N W S"]] = []

        def attend_to_source(x: Float[Array, "B W D"]) -> Float[Array, "B W D"]:
            weights.append(self.cross_attention.weigh_cache(x, cross_cache, cross_mask))
            return self.cross_attention.attend_to_cache(x, cross_cache, cross_mask)

        states = self.cross_attention_residual(states, attend_to_source, deterministic=True)
        states = self.feed_forward_residual(
            states, lambda x: self.feed_forward(x, deterministic=True), deterministic=True
        )
        return DecoderStep(states, self_cache, weights[0])
