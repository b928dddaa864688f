"""Stacks of layers: a loop over separate layers, or a scan over stacked ones."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp

from flax_transformer.array_types import Array, Bool, Float, Int, Parameters
from flax_transformer.models.decoder_cache import (
    DecoderCache,
    first_slot,
    make_self_mask,
    slot_positions,
)
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.nn.attention_mask import AttentionMask
from flax_transformer.nn.blocks import DecoderLayer, EncoderLayer
from flax_transformer.nn.kv_cache import KeyValues
from flax_transformer.nn.masks import make_padding_mask
from flax_transformer.nn.normalization import LayerNorm, RMSNorm, make_norm
from flax_transformer.nn.relative_position import RelativePositionBias
from flax_transformer.nn.remat import RematPolicy, rematerialize
from flax_transformer.parallel.activation_sharding import constrain

Layers: TypeAlias = nn.Module | Sequence[nn.Module]
"""One module with the parameters of all layers stacked, or one module a layer."""


def make_layers(layer: Callable[[], nn.Module], num_layers: int, *, stacked: bool) -> Layers:
    """Make ``num_layers`` layers, for the ``setup`` of a stack."""
    return layer() if stacked else [layer() for _ in range(num_layers)]


def apply_layers(
    layers: Layers,
    states: Float[Array, "B T D"],
    apply_layer: Callable[[Any, Float[Array, "B T D"]], Float[Array, "B T D"]],
    *,
    num_layers: int,
    remat: RematPolicy,
) -> Float[Array, "B T D"]:
    """Pass ``states`` through all layers; the result is the same for every choice of options."""
    apply_layer = rematerialize(apply_layer, remat, in_scan=isinstance(layers, nn.Module))

    def apply_and_place(layer: Any, states: Float[Array, "B T D"]) -> Float[Array, "B T D"]:
        return constrain(apply_layer(layer, states), "batch", "state_length", "_")

    if isinstance(layers, nn.Module):
        scan = nn.scan(
            lambda layer, carry, _: (apply_and_place(layer, carry), None),
            variable_axes={"params": 0},
            split_rngs={"params": True, "dropout": True},
            length=num_layers,
        )
        return scan(layers, states, None)[0]
    for layer in layers:
        states = apply_and_place(layer, states)
    return states


class Encoder(nn.Module):
    """The layers of an encoder, or, under a causal mask, of a decoder without one.

    Attributes:
        config: of the model.
        num_layers: number of layers.
        bidirectional: whether a position sees those after it; read by relative positions.
    """

    config: TransformerConfig
    num_layers: int
    bidirectional: bool = True

    def setup(self) -> None:
        """Declare the layers and, with pre-norm, the normalisation of the last one's output."""
        config = self.config
        self.layers = make_layers(
            lambda: EncoderLayer(config.layer_config()),
            self.num_layers,
            stacked=config.scan_layers,
        )
        self.relative_bias = _make_relative_bias(config, bidirectional=self.bidirectional)
        self.final_norm = _make_final_norm(config)

    def __call__(
        self,
        states: Float[Array, "B S D"],
        mask: AttentionMask | Bool[Array, "#B #N #S S"] | None,
        *,
        positions: Int[Array, "#B S"],
        deterministic: bool,
    ) -> Float[Array, "B S D"]:
        """Encode embedded tokens that stand at ``positions``."""
        bias = _bias_of(self.relative_bias, positions, positions)
        states = apply_layers(
            self.layers,
            states,
            lambda layer, x: layer(
                x, mask, bias=bias, positions=positions, deterministic=deterministic
            ),
            num_layers=self.num_layers,
            remat=self.config.remat,
        )
        return states if self.final_norm is None else self.final_norm(states)

    def prefill(
        self,
        states: Float[Array, "B P D"],
        mask: Bool[Array, "#B #N #P P"],
        *,
        positions: Int[Array, "#B P"],
    ) -> tuple[KeyValues, ...]:
        """Read a prompt; return the keys and values of each layer. Needs unstacked layers."""
        bias = _bias_of(self.relative_bias, positions, positions)
        read = []
        for layer in self.layers:
            states, key_values = layer.prefill(states, mask, bias=bias, positions=positions)
            read.append(key_values)
        return tuple(read)

    def step(
        self,
        states: Float[Array, "B W D"],
        cache: DecoderCache,
        *,
        positions: Int[Array, "#B W"],
    ) -> tuple[Float[Array, "B W D"], DecoderCache]:
        """Decode one position of each hypothesis; as :meth:`Decoder.step`."""
        bias = _bias_of(self.relative_bias, positions, slot_positions(cache))
        mask = make_self_mask(cache)
        extended = []
        for layer, layer_cache in zip(self.layers, cache.self_attention, strict=True):
            states, new_cache = layer.step(
                states, layer_cache, mask, first_slot(cache), bias=bias, positions=positions
            )
            extended.append(new_cache)
        if self.final_norm is not None:
            states = self.final_norm(states)
        return states, cache._replace(self_attention=tuple(extended))


class Decoder(nn.Module):
    """The layers of the decoder."""

    config: TransformerConfig

    def setup(self) -> None:
        """Declare the layers and, with pre-norm, the normalisation of the last one's output."""
        config = self.config
        self.layers = make_layers(
            lambda: DecoderLayer(config.layer_config()),
            config.num_decoder_layers,
            stacked=config.scan_layers,
        )
        self.relative_bias = _make_relative_bias(config, bidirectional=False)
        self.final_norm = _make_final_norm(config)

    def __call__(
        self,
        states: Float[Array, "B T D"],
        encoded: Float[Array, "B S D"],
        self_mask: AttentionMask | Bool[Array, "#B #N T T"],
        cross_mask: AttentionMask | Bool[Array, "#B #N #T S"] | None,
        *,
        positions: Int[Array, "#B T"],
        deterministic: bool,
    ) -> Float[Array, "B T D"]:
        """Decode embedded tokens that stand at ``positions``, all at once."""
        bias = _bias_of(self.relative_bias, positions, positions)
        states = apply_layers(
            self.layers,
            states,
            lambda layer, x: layer(
                x,
                encoded,
                self_mask,
                cross_mask,
                bias=bias,
                positions=positions,
                deterministic=deterministic,
            ),
            num_layers=self.config.num_decoder_layers,
            remat=self.config.remat,
        )
        return states if self.final_norm is None else self.final_norm(states)

    def make_cross_key_values(self, encoded: Float[Array, "B S D"]) -> tuple[KeyValues, ...]:
        """Project the encoder's output for every layer; needs unstacked layers."""
        return tuple(layer.make_cross_key_values(encoded) for layer in self.layers)

    def step(
        self,
        states: Float[Array, "B W D"],
        cache: DecoderCache,
        *,
        positions: Int[Array, "#B W"],
    ) -> tuple[Float[Array, "B W D"], DecoderCache]:
        """Decode one position of each hypothesis; needs unstacked layers.

        Args:
            states: embedded tokens, of which the cache knows the number already.
            cache: of all layers; see :func:`.decoder_cache.add_step`.
            positions: of the tokens.
        """
        bias = _bias_of(self.relative_bias, positions, slot_positions(cache))
        self_mask = make_self_mask(cache)
        cross_mask = None if cache.source_mask is None else make_padding_mask(cache.source_mask)
        extended = []
        weights = None
        for layer, self_cache, cross_cache in zip(
            self.layers, cache.self_attention, cache.cross_attention, strict=True
        ):
            states, new_cache, weights = layer.step(
                states,
                self_cache,
                cross_cache,
                self_mask,
                cross_mask,
                first_slot(cache),
                bias=bias,
                positions=positions,
            )
            extended.append(new_cache)
        cache = cache._replace(self_attention=tuple(extended))
        if cache.cross_weights is not None and weights is not None:
            cache = cache._replace(cross_weights=weights.mean(axis=1))
        return states if self.final_norm is None else self.final_norm(states), cache


def _make_relative_bias(
    config: TransformerConfig, *, bidirectional: bool
) -> RelativePositionBias | None:
    if config.position_encoding != "relative":
        return None
    return RelativePositionBias(
        config.num_heads,
        config.num_relative_buckets,
        config.max_relative_distance,
        bidirectional=bidirectional,
    )


def _bias_of(
    relative_bias: RelativePositionBias | None,
    query_positions: Int[Array, "#B T"],
    key_positions: Int[Array, "#B S"],
) -> Float[Array, "#B N T S"] | None:
    return None if relative_bias is None else relative_bias(query_positions, key_positions)


def _make_final_norm(config: TransformerConfig) -> LayerNorm | RMSNorm | None:
    return make_norm(config.norm, config.norm_epsilon) if config.pre_norm else None


def unstack_layers(params: Parameters) -> Parameters:
    """Split parameters made with ``scan_layers`` into those of separate layers.

    Every ``"layers"`` whose arrays have a leading axis L becomes ``"layers_0"`` to
    ``"layers_{L-1}"``; the rest is kept. Parameters of separate layers are returned as they are.
    """
    unstacked: dict[str, Any] = {}
    for name, child in params.items():
        if name == "layers":
            for i in range(jax.tree.leaves(child)[0].shape[0]):
                unstacked[f"layers_{i}"] = jax.tree.map(lambda leaf, i=i: leaf[i], child)
        else:
            unstacked[name] = unstack_layers(child) if isinstance(child, Mapping) else child
    return unstacked


def stack_layers(params: Parameters) -> Parameters:
    """Join the parameters of separate layers into those of ``scan_layers``; see unstack_layers."""
    layers = [params[f"layers_{i}"] for i in range(sum(n.startswith("layers_") for n in params))]
    stacked: dict[str, Any] = {
        name: stack_layers(child) if isinstance(child, Mapping) else child
        for name, child in params.items()
        if not name.startswith("layers_")
    }
    if layers:
        stacked["layers"] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *layers)
    return stacked
