"""Stacks of layers: a loop over separate layers, or a scan over stacked ones."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp

from flax_transformer.array_types import Array, Bool, Float, Int, Parameters
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.nn.blocks import DecoderLayer, EncoderLayer
from flax_transformer.nn.kv_cache import KeyValues
from flax_transformer.nn.normalization import LayerNorm
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
    """The layers of an encoder, or, under a causal mask, of a decoder without one."""

    config: TransformerConfig
    num_layers: int

    def setup(self) -> None:
        """Declare the layers and, with pre-norm, the normalisation of the last one's output."""
        config = self.config
        self.layers = make_layers(
            lambda: EncoderLayer(config.layer_config()),
            self.num_layers,
            stacked=config.scan_layers,
        )
        if config.pre_norm:
            self.final_norm = LayerNorm(config.norm_epsilon)

    def __call__(
        self,
        states: Float[Array, "B S D"],
        mask: Bool[Array, "#B #N #S S"] | None,
        *,
        deterministic: bool,
    ) -> Float[Array, "B S D"]:
        """Encode embedded tokens."""
        states = apply_layers(
            self.layers,
            states,
            lambda layer, x: layer(x, mask, deterministic=deterministic),
            num_layers=self.num_layers,
            remat=self.config.remat,
        )
        return self.final_norm(states) if self.config.pre_norm else states


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
        if config.pre_norm:
            self.final_norm = LayerNorm(config.norm_epsilon)

    def __call__(
        self,
        states: Float[Array, "B T D"],
        encoded: Float[Array, "B S D"],
        self_mask: Bool[Array, "#B #N T T"],
        cross_mask: Bool[Array, "#B #N #T S"] | None,
        *,
        deterministic: bool,
    ) -> Float[Array, "B T D"]:
        """Decode embedded tokens, all positions at once."""
        states = apply_layers(
            self.layers,
            states,
            lambda layer, x: layer(x, encoded, self_mask, cross_mask, deterministic=deterministic),
            num_layers=self.config.num_decoder_layers,
            remat=self.config.remat,
        )
        return self.final_norm(states) if self.config.pre_norm else states

    def make_cross_key_values(self, encoded: Float[Array, "B S D"]) -> tuple[KeyValues, ...]:
        """Project the encoder's output for every layer; needs unstacked layers."""
        return tuple(layer.make_cross_key_values(encoded) for layer in self.layers)

    def step(
        self,
        states: Float[Array, "B W D"],
        self_caches: Sequence[KeyValues],
        cross_caches: Sequence[KeyValues],
        self_mask: Bool[Array, "B 1 W slots"],
        cross_mask: Bool[Array, "B 1 1 S"] | None,
        index: Int[Array, ""],
    ) -> tuple[Float[Array, "B W D"], tuple[KeyValues, ...]]:
        """Decode one position of each hypothesis; needs unstacked layers."""
        extended = []
        for layer, self_cache, cross_cache in zip(
            self.layers, self_caches, cross_caches, strict=True
        ):
            states, cache = layer.step(
                states, self_cache, cross_cache, self_mask, cross_mask, index
            )
            extended.append(cache)
        states = self.final_norm(states) if self.config.pre_norm else states
        return states, tuple(extended)


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
