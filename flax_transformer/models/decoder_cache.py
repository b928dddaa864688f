"""What decoding keeps between steps."""

from typing import NamedTuple

import jax.numpy as jnp

from flax_transformer.array_types import Array, Bool, Float, Int
from flax_transformer.errors import InputError
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.nn.kv_cache import KeyValues, grow_key_values, init_key_values
from flax_transformer.nn.masks import make_ancestry_mask, make_padding_mask


class DecoderCache(NamedTuple):
    """The state of a decoder that has read some tokens of W hypotheses for each input.

    Attributes:
        self_attention: keys and values a layer: those of the prompt, P slots that all hypotheses
            share, then ``T * W`` slots of what the hypotheses read; see
            :mod:`flax_transformer.nn.kv_cache`.
        cross_attention: keys and values of the source a layer, computed once a sentence; empty
            without an encoder.
        source_mask: True on the source's tokens; None where all positions are tokens.
        prompt_mask: True on the prompt's tokens; None without a prompt.
        ancestry: row of the beam that read each token of each hypothesis.
        num_tokens: number of tokens read after the prompt, a scalar.
        cross_weights: attention of the last token read to the source, the mean over the heads of
            the last layer; None where it is not kept.
    """

    self_attention: tuple[KeyValues, ...]
    cross_attention: tuple[KeyValues, ...]
    source_mask: Bool[Array, "B S"] | None
    prompt_mask: Bool[Array, "B P"] | None
    ancestry: Int[Array, "B W T"]
    num_tokens: Int[Array, ""]
    cross_weights: Float[Array, "B W S"] | None


def add_step(cache: DecoderCache) -> DecoderCache:
    """Note that every hypothesis reads one more token, each by its own row."""
    num_rows = cache.ancestry.shape[1]
    rows = jnp.arange(num_rows, dtype=cache.ancestry.dtype)
    ancestry = cache.ancestry.at[:, :, cache.num_tokens].set(rows[None])
    return cache._replace(ancestry=ancestry, num_tokens=cache.num_tokens + 1)


def check_can_decode(config: TransformerConfig, max_length: int, prompt_length: int = 1) -> None:
    """Raise InputError if layers are stacked or there are too few positions.

    A start token is a prompt of length 1; the last token generated is never read.
    """
    if config.scan_layers:
        raise InputError("scan_layers must be off to decode. Use unstack_layers on the parameters.")
    if config.position_limit is None:
        return
    room = config.position_limit - prompt_length + 1
    if max_length > room:
        raise InputError(
            f"max_length must be at most {room} after {prompt_length} tokens for max_positions = "
            f"{config.max_positions}, got {max_length}."
        )


def init_self_attention(
    config: TransformerConfig, batch_size: int, num_slots: int
) -> tuple[KeyValues, ...]:
    """Make the empty caches of all layers of a decoder."""
    layer = config.layer_config()
    empty = init_key_values(
        batch_size,
        layer.num_key_value_heads or layer.num_heads,
        layer.head_dim,
        num_slots,
        dtype=config.compute_dtype,
    )
    return (empty,) * config.num_decoder_layers


def first_slot(cache: DecoderCache) -> Int[Array, ""]:
    """Return the slot of the last token that the first hypothesis read."""
    num_prompt_slots = 0 if cache.prompt_mask is None else cache.prompt_mask.shape[1]
    return num_prompt_slots + (cache.num_tokens - 1) * cache.ancestry.shape[1]


def last_positions(cache: DecoderCache) -> Int[Array, "#B 1"]:
    """Return the position of the last token that the hypotheses read, counted with the prompt."""
    own = jnp.full((1, 1), cache.num_tokens - 1)
    if cache.prompt_mask is None:
        return own
    return own + cache.prompt_mask.sum(axis=1, keepdims=True, dtype=jnp.int32)


def slot_positions(cache: DecoderCache) -> Int[Array, "#B slots"]:
    """Return the position of the token that each slot of self-attention holds."""
    beam_size, length = cache.ancestry.shape[1:]
    own = (jnp.arange(length * beam_size) // beam_size)[None]
    if cache.prompt_mask is None:
        return own
    counts = jnp.cumsum(cache.prompt_mask, axis=1, dtype=jnp.int32)
    return jnp.concatenate([counts - 1, own + counts[:, -1:]], axis=1)


def make_self_mask(cache: DecoderCache) -> Bool[Array, "B 1 W slots"]:
    """Let each hypothesis attend to the prompt and to what it has read, the last token too."""
    own = make_ancestry_mask(cache.ancestry, cache.num_tokens - 1)
    if cache.prompt_mask is None:
        return own
    prompt = jnp.broadcast_to(
        make_padding_mask(cache.prompt_mask), (*own.shape[:3], cache.prompt_mask.shape[1])
    )
    return jnp.concatenate([prompt, own], axis=-1)


def mark_overflow(states: Float[Array, "B W D"], cache: DecoderCache) -> Float[Array, "B W D"]:
    """Make states NaN once a cache is full: XLA clamps writes past its end, which nobody sees."""
    return jnp.where(cache.num_tokens <= cache.ancestry.shape[-1], states, jnp.nan)


def grow_cache(cache: DecoderCache, max_length: int) -> DecoderCache:
    """Make room for ``max_length`` tokens of each hypothesis after the prompt.

    What a step computes does not depend on the room there is, but its cost does.
    """
    beam_size, length = cache.ancestry.shape[1:]
    num_steps = max_length - length
    return cache._replace(
        self_attention=tuple(
            grow_key_values(layer, num_steps * beam_size) for layer in cache.self_attention
        ),
        ancestry=jnp.pad(cache.ancestry, [(0, 0), (0, 0), (0, num_steps)]),
    )


def reorder_cache(cache: DecoderCache, parents: Int[Array, "B W"]) -> DecoderCache:
    """Let row w continue the hypothesis of row ``parents[:, w]``: moves indices, not the cache."""

    def reorder(rows: Array) -> Array:
        return jnp.take_along_axis(rows, parents[:, :, None], axis=1)

    return cache._replace(
        ancestry=reorder(cache.ancestry),
        cross_weights=None if cache.cross_weights is None else reorder(cache.cross_weights),
    )
