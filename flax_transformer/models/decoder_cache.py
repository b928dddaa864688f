"""What decoding keeps between steps."""

from typing import NamedTuple

import jax.numpy as jnp

from flax_transformer.array_types import Array, Bool, Float, Int
from flax_transformer.errors import InputError
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.nn.kv_cache import KeyValues, grow_key_values, init_key_values
from flax_transformer.nn.masks import make_ancestry_mask


class EarlierTokens(NamedTuple):
    """The tokens of the first P slots of a cache: a prompt, or what was kept of long hypotheses.

    Attributes:
        mask: True where a hypothesis attends to a slot.
        positions: of the tokens in the slots; of no meaning where no hypothesis attends.
        next_position: of the first token after them.
    """

    mask: Bool[Array, "B W P"]
    positions: Int[Array, "B P"]
    next_position: Int[Array, " B"]


class DecoderCache(NamedTuple):
    """The state of a decoder that has read some tokens of W hypotheses for each input.

    Attributes:
        self_attention: keys and values a layer: P slots of earlier tokens, each of which several
            hypotheses may share, then ``T * W`` slots of what each read since; see
            :mod:`flax_transformer.nn.kv_cache`.
        cross_attention: keys and values of the source a layer, computed once a sentence; empty
            without an encoder.
        source_mask: True on the source's tokens; None where all positions are tokens.
        earlier: what the first P slots hold; None where there are none.
        ancestry: row of the beam that read each token of each hypothesis since.
        num_tokens: number of tokens read since, a scalar.
        cross_weights: attention of the last token read to the source, the mean over the heads of
            the last layer; None where it is not kept.
    """

    self_attention: tuple[KeyValues, ...]
    cross_attention: tuple[KeyValues, ...]
    source_mask: Bool[Array, "B S"] | None
    earlier: EarlierTokens | None
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


def count_slots(cache: DecoderCache) -> int:
    """Return how many slots of self-attention there are."""
    return cache.self_attention[0].values.shape[2]


def first_slot(cache: DecoderCache) -> Int[Array, ""]:
    """Return the slot of the last token that the first hypothesis read."""
    num_earlier_slots = 0 if cache.earlier is None else cache.earlier.mask.shape[2]
    return num_earlier_slots + (cache.num_tokens - 1) * cache.ancestry.shape[1]


def last_positions(cache: DecoderCache) -> Int[Array, "#B 1"]:
    """Return the position of the last token that the hypotheses read."""
    last = jnp.full((1, 1), cache.num_tokens - 1)
    return last if cache.earlier is None else last + cache.earlier.next_position[:, None]


def slot_positions(cache: DecoderCache) -> Int[Array, "#B slots"]:
    """Return the position of the token that each slot of self-attention holds."""
    beam_size, length = cache.ancestry.shape[1:]
    since = (jnp.arange(length * beam_size) // beam_size)[None]
    if cache.earlier is None:
        return since
    since = since + cache.earlier.next_position[:, None]
    return jnp.concatenate([cache.earlier.positions, since], axis=1)


def make_self_mask(cache: DecoderCache) -> Bool[Array, "B 1 W slots"]:
    """Let each hypothesis attend to all that it has read, the last token too."""
    since = make_ancestry_mask(cache.ancestry, cache.num_tokens - 1)
    if cache.earlier is None:
        return since
    return jnp.concatenate([cache.earlier.mask[:, None], since], axis=-1)


def mark_overflow(states: Float[Array, "B W D"], cache: DecoderCache) -> Float[Array, "B W D"]:
    """Make states NaN once a cache is full: XLA clamps writes past its end, which nobody sees."""
    return jnp.where(cache.num_tokens <= cache.ancestry.shape[-1], states, jnp.nan)


def grow_cache(cache: DecoderCache, num_more: int) -> DecoderCache:
    """Make room for ``num_more`` more tokens of each hypothesis.

    What a step computes does not depend on the room there is, but its cost does.
    """
    return cache._replace(
        self_attention=tuple(
            grow_key_values(layer, num_more * cache.ancestry.shape[1])
            for layer in cache.self_attention
        ),
        ancestry=jnp.pad(cache.ancestry, [(0, 0), (0, 0), (0, num_more)]),
    )


def reorder_cache(cache: DecoderCache, parents: Int[Array, "B W"]) -> DecoderCache:
    """Let row w continue the hypothesis of row ``parents[:, w]``: moves indices, not the cache."""

    def reorder(rows: Array) -> Array:
        return jnp.take_along_axis(rows, parents[:, :, None], axis=1)

    earlier, cross_weights = cache.earlier, cache.cross_weights
    return cache._replace(
        earlier=None if earlier is None else earlier._replace(mask=reorder(earlier.mask)),
        ancestry=reorder(cache.ancestry),
        cross_weights=None if cross_weights is None else reorder(cross_weights),
    )
