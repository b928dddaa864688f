"""The cache of long hypotheses, without the slots that none of them attends to any more.

Beam search drops most of what it tries: after a while the hypotheses of a beam share all but their
last tokens, of which the cache still has a slot for each place of the beam.
"""

import jax.numpy as jnp

from flax_transformer.array_types import Array, Int
from flax_transformer.models.decoder_cache import (
    DecoderCache,
    EarlierTokens,
    last_positions,
    make_self_mask,
    slot_positions,
)
from flax_transformer.nn.kv_cache import take_key_values


def count_live_slots(cache: DecoderCache) -> Int[Array, " B"]:
    """Return how many slots of self-attention some hypothesis attends to."""
    return make_self_mask(cache).any(axis=(1, 2)).sum(axis=-1, dtype=jnp.int32)


def compact_cache(cache: DecoderCache, num_slots: int) -> DecoderCache:
    """Keep the slots that some hypothesis attends to, all of them as earlier tokens.

    There is no room for further tokens then, until :func:`.grow_cache` makes some. Rows that attend
    to more than ``num_slots`` slots lose the last of them.
    """
    mask = make_self_mask(cache)[:, 0]
    # Live slots first, and these in their order.
    slots = jnp.argsort(~mask.any(axis=1), axis=1, stable=True)[:, :num_slots]
    batch_size, beam_size = mask.shape[:2]
    positions = jnp.broadcast_to(slot_positions(cache), (batch_size, mask.shape[2]))
    return cache._replace(
        self_attention=tuple(take_key_values(layer, slots) for layer in cache.self_attention),
        earlier=EarlierTokens(
            mask=jnp.take_along_axis(mask, slots[:, None], axis=2),
            positions=jnp.take_along_axis(positions, slots, axis=1),
            next_position=jnp.broadcast_to(last_positions(cache)[:, 0] + 1, (batch_size,)),
        ),
        ancestry=jnp.zeros((batch_size, beam_size, 0), cache.ancestry.dtype),
        num_tokens=jnp.zeros_like(cache.num_tokens),
    )
