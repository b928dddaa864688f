"""The encoder-decoder Transformer of "Attention Is All You Need" (arXiv 1706.03762)."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp

from flax_transformer.array_types import Array, Bool, Float, Int
from flax_transformer.errors import InputError
from flax_transformer.models.inputs import make_embedding, make_positions, positions_of
from flax_transformer.models.stack import Decoder, Encoder
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.nn.dropout import Dropout
from flax_transformer.nn.embedding import score_tokens
from flax_transformer.nn.kv_cache import KeyValues, init_key_values
from flax_transformer.nn.masks import (
    make_ancestry_mask,
    make_causal_mask,
    make_padding_mask,
    make_segment_mask,
)
from flax_transformer.parallel.activation_sharding import constrain


class DecoderCache(NamedTuple):
    """What decoding keeps between steps; see :mod:`flax_transformer.nn.kv_cache`.

    Attributes:
        self_attention: keys and values of the tokens so far, shared by the beam's W rows; a layer
            each, of ``T * W`` slots.
        cross_attention: keys and values of the source, computed once a sentence; a layer each.
        source_mask: True on the source's tokens; None where all positions are tokens.
        ancestry: row of the beam that wrote each token of each hypothesis.
        num_tokens: number of tokens read so far, a scalar.
    """

    self_attention: tuple[KeyValues, ...]
    cross_attention: tuple[KeyValues, ...]
    source_mask: Bool[Array, "B S"] | None
    ancestry: Int[Array, "B W T"]
    num_tokens: Int[Array, ""]


class EncoderDecoder(nn.Module):
    """A Transformer that reads a source and predicts a target.

    Plain use: ``model.apply({"params": params}, source, target, source_mask, deterministic=True)``.
    Packed rows, several sentences in one, are given by segment ids (from 1; 0 is padding) and
    positions (from 0 within each segment) of both sides. Dropout takes its key from
    ``rngs={"dropout": key}``. An id outside the vocabulary gives NaN logits.
    """

    config: TransformerConfig

    def setup(self) -> None:
        """Declare the embeddings, the two stacks and the output projection."""
        config = self.config

        self.target_embedding = make_embedding(config, config.target_vocab_size)
        if config.share_source_target_embedding:
            self.source_embedding = self.target_embedding
        else:
            self.source_embedding = make_embedding(config, config.source_vocab_size)
        self.source_positions = make_positions(config)
        self.target_positions = make_positions(config)
        self.embedding_dropout = Dropout(config.dropout_rate)
        self.encoder = Encoder(config, config.num_encoder_layers)
        self.decoder = Decoder(config)
        if not config.share_target_output_embedding:
            # A table of its own, used only to score states: no bias, like the tied one.
            self.output_embedding = make_embedding(config, config.target_vocab_size)

    def __call__(
        self,
        source: Int[Array, "B S"],
        target: Int[Array, "B T"],
        source_mask: Bool[Array, "B S"] | None = None,
        *,
        source_segment_ids: Int[Array, "B S"] | None = None,
        source_positions: Int[Array, "B S"] | None = None,
        target_segment_ids: Int[Array, "B T"] | None = None,
        target_positions: Int[Array, "B T"] | None = None,
        deterministic: bool = True,
    ) -> Float[Array, "B T V"]:
        """Return float32 logits of the token after each position of ``target``.

        Args:
            source: tokens to read.
            target: what the decoder reads: the target shifted right, behind a start token.
            source_mask: True on the source's tokens; None where there is no padding.
            source_segment_ids: for packed rows, in place of ``source_mask``.
            source_positions: for packed rows; None counts from the row's start.
            target_segment_ids: for packed rows; without them the target may be padded on its right.
            target_positions: as ``source_positions``.
            deterministic: without dropout.

        Raises:
            InputError: a row is longer than ``max_positions``, or a mask and segments are mixed.
        """
        encoded = self.encode(
            source,
            source_mask,
            segment_ids=source_segment_ids,
            positions=source_positions,
            deterministic=deterministic,
        )
        states = self.decode(
            target,
            encoded,
            source_mask,
            source_segment_ids=source_segment_ids,
            segment_ids=target_segment_ids,
            positions=target_positions,
            deterministic=deterministic,
        )
        return self.logits(states)

    def encode(
        self,
        source: Int[Array, "B S"],
        source_mask: Bool[Array, "B S"] | None = None,
        *,
        segment_ids: Int[Array, "B S"] | None = None,
        positions: Int[Array, "B S"] | None = None,
        deterministic: bool = True,
    ) -> Float[Array, "B S D"]:
        """Encode the source; arguments as for :meth:`__call__`."""
        mask = _make_key_mask(source_mask, segment_ids, segment_ids)
        positions = positions_of(source, positions, max_positions=self.config.max_positions)
        states = self.source_embedding(source)
        states = self._add(states, self.source_positions(positions), deterministic=deterministic)
        return self.encoder(states, mask, deterministic=deterministic)

    def decode(
        self,
        target: Int[Array, "B T"],
        encoded: Float[Array, "B S D"],
        source_mask: Bool[Array, "B S"] | None = None,
        *,
        source_segment_ids: Int[Array, "B S"] | None = None,
        segment_ids: Int[Array, "B T"] | None = None,
        positions: Int[Array, "B T"] | None = None,
        deterministic: bool = True,
    ) -> Float[Array, "B T D"]:
        """Return the decoder's states, which :meth:`logits` reads; arguments as for __call__."""
        if (segment_ids is None) != (source_segment_ids is None):
            raise InputError("segment ids must be given for both source and target, or for none.")
        self_mask = make_causal_mask(target.shape[1])
        if segment_ids is not None:
            self_mask &= make_segment_mask(segment_ids, segment_ids)
        cross_mask = _make_key_mask(source_mask, segment_ids, source_segment_ids)
        positions = positions_of(target, positions, max_positions=self.config.max_positions)
        states = self.target_embedding(target)
        states = self._add(states, self.target_positions(positions), deterministic=deterministic)
        return self.decoder(states, encoded, self_mask, cross_mask, deterministic=deterministic)

    def logits(self, states: Float[Array, "*B D"]) -> Float[Array, "*B V"]:
        """Return the float32 logits of the token after each state."""
        product_dtype = self.config.product_dtype or self.config.compute_dtype
        return score_tokens(states, self.output_table(), product_dtype=product_dtype)

    def output_table(self) -> Float[Array, "V D"]:
        """Return the table that final states are scored against, token by token."""
        if self.config.share_target_output_embedding:
            return self.target_embedding.embedding
        return self.output_embedding.embedding

    def init_cache(
        self,
        encoded: Float[Array, "B S D"],
        source_mask: Bool[Array, "B S"] | None = None,
        *,
        beam_size: int = 1,
        max_length: int,
    ) -> DecoderCache:
        """Make the cache to decode up to ``max_length`` tokens of ``beam_size`` hypotheses.

        Raises:
            InputError: ``max_length`` is over ``max_positions``, or the layers are stacked.
        """
        config = self.config
        if config.scan_layers:
            raise InputError(
                "scan_layers must be off to decode. Use unstack_layers on the parameters."
            )
        if max_length > config.max_positions:
            raise InputError(
                f"max_length must be at most max_positions = {config.max_positions}, "
                f"got {max_length}."
            )
        layer = config.layer_config()
        batch_size = encoded.shape[0]
        empty = init_key_values(
            batch_size,
            layer.num_heads,
            layer.head_dim,
            max_length * beam_size,
            dtype=config.compute_dtype,
        )
        return DecoderCache(
            self_attention=(empty,) * config.num_decoder_layers,
            cross_attention=self.decoder.make_cross_key_values(encoded),
            source_mask=source_mask,
            ancestry=jnp.zeros((batch_size, beam_size, max_length), jnp.int32),
            num_tokens=jnp.zeros((), jnp.int32),
        )

    def decode_step(
        self, tokens: Int[Array, "B W"], cache: DecoderCache
    ) -> tuple[Float[Array, "B W V"], DecoderCache]:
        """Read the last token of each hypothesis; return the next one's logits and the cache.

        Logits are NaN once the cache is full, after ``max_length`` steps.
        """
        beam_size = tokens.shape[1]
        index = cache.num_tokens
        rows = jnp.arange(beam_size, dtype=cache.ancestry.dtype)
        ancestry = cache.ancestry.at[:, :, index].set(rows[None])
        self_mask = make_ancestry_mask(ancestry, index)
        cross_mask = None if cache.source_mask is None else make_padding_mask(cache.source_mask)
        states = self.target_embedding(tokens)
        # XLA clamps a write past the cache's end: a position that does not exist makes it seen.
        position = jnp.where(index < ancestry.shape[-1], index, self.config.max_positions)
        encoding = self.target_positions(jnp.broadcast_to(position, tokens.shape))
        states = self._add(states, encoding, deterministic=True)
        states, self_attention = self.decoder.step(
            states, cache.self_attention, cache.cross_attention, self_mask, cross_mask, index
        )
        cache = cache._replace(
            self_attention=self_attention, ancestry=ancestry, num_tokens=index + 1
        )
        return self.logits(states), cache

    def _add(
        self,
        states: Float[Array, "B T D"],
        encoding: Float[Array, "#B T D"],
        *,
        deterministic: bool,
    ) -> Float[Array, "B T D"]:
        states = constrain(states + encoding.astype(states.dtype), "batch", "state_length", "_")
        return self.embedding_dropout(states, deterministic=deterministic)


def _make_key_mask(
    key_mask: Bool[Array, "B S"] | None,
    query_segment_ids: Int[Array, "B T"] | None,
    key_segment_ids: Int[Array, "B S"] | None,
) -> Bool[Array, "B 1 #T S"] | None:
    """Return the mask of padded rows or of packed ones; None where all positions are tokens."""
    if query_segment_ids is None or key_segment_ids is None:
        return None if key_mask is None else make_padding_mask(key_mask)
    if key_mask is not None:
        raise InputError("source_mask must be None when segment ids are given.")
    return make_segment_mask(query_segment_ids, key_segment_ids)


def reorder_cache(cache: DecoderCache, parents: Int[Array, "B W"]) -> DecoderCache:
    """Let row w continue the hypothesis of row ``parents[:, w]``: moves indices, not the cache."""
    return cache._replace(ancestry=jnp.take_along_axis(cache.ancestry, parents[:, :, None], axis=1))
