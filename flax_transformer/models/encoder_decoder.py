"""The encoder-decoder Transformer of "Attention Is All You Need" (arXiv 1706.03762)."""

import dataclasses

import flax.linen as nn
import jax.numpy as jnp

from flax_transformer.array_types import Array, Bool, Float, Int
from flax_transformer.errors import InputError
from flax_transformer.models.decoder_cache import (
    DecoderCache,
    add_step,
    check_can_decode,
    init_self_attention,
    last_positions,
    mark_overflow,
)
from flax_transformer.models.inputs import (
    make_embedding,
    make_embedding_norm,
    make_positions,
    positions_of,
    sum_inputs,
)
from flax_transformer.models.outputs import make_logits, scale_states
from flax_transformer.models.stack import Decoder, Encoder
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.nn.attention_mask import AttentionMask
from flax_transformer.nn.dropout import Dropout
from flax_transformer.nn.embedding import OutputProjection


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
        self.source_embedding_norm = make_embedding_norm(config)
        self.target_embedding_norm = make_embedding_norm(config)
        self.embedding_dropout = Dropout(config.dropout_rate)
        self.encoder = Encoder(config, config.num_encoder_layers)
        self.decoder = Decoder(config)
        self.output_embedding = (
            self.target_embedding
            if config.share_target_output_embedding
            else make_embedding(config, config.target_vocab_size)
        )
        self.output_bias = (
            self.param("output_bias", nn.initializers.zeros, (config.target_vocab_size,))
            if config.output_bias
            else None
        )

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
        mask = dataclasses.replace(
            _make_key_mask(source_mask, segment_ids, segment_ids),
            sparsity=self.config.encoder_sparsity,
        )
        positions = positions_of(source, positions, limit=self.config.position_limit)
        states = sum_inputs(
            self.source_embedding(source),
            positions,
            position_encoding=self.source_positions,
            norm=self.source_embedding_norm,
            dropout=self.embedding_dropout,
            deterministic=deterministic,
        )
        return self.encoder(states, mask, positions=positions, deterministic=deterministic)

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
        self_mask = AttentionMask(
            causal=True, query_segment_ids=segment_ids, key_segment_ids=segment_ids
        )
        cross_mask = _make_key_mask(source_mask, segment_ids, source_segment_ids)
        positions = positions_of(target, positions, limit=self.config.position_limit)
        states = self._sum_target_inputs(target, positions, deterministic=deterministic)
        states = self.decoder(
            states,
            encoded,
            self_mask,
            cross_mask,
            positions=positions,
            deterministic=deterministic,
        )
        return scale_states(states, self.config)

    def logits(self, states: Float[Array, "*B D"]) -> Float[Array, "*B V"]:
        """Return the float32 logits of the token after each state."""
        return make_logits(states, self.output_projection(), self.config)

    def output_projection(self) -> OutputProjection:
        """Return what final states are scored with, token by token."""
        return OutputProjection(self.output_embedding.embedding, self.output_bias)

    def init_cache(
        self,
        encoded: Float[Array, "B S D"],
        source_mask: Bool[Array, "B S"] | None = None,
        *,
        beam_size: int = 1,
        max_length: int,
        keep_cross_weights: bool = False,
    ) -> DecoderCache:
        """Make the cache to decode up to ``max_length`` tokens of ``beam_size`` hypotheses.

        Args:
            encoded: the encoder's output.
            source_mask: True on the source's tokens; None where there is no padding.
            beam_size: hypotheses of each sentence, W.
            max_length: tokens that a hypothesis may have.
            keep_cross_weights: let each step keep its attention to the source.

        Raises:
            InputError: ``max_length`` is over ``max_positions``, or the layers are stacked.
        """
        config = self.config
        check_can_decode(config, max_length)
        batch_size, source_length = encoded.shape[:2]
        return DecoderCache(
            self_attention=init_self_attention(config, batch_size, max_length * beam_size),
            cross_attention=self.decoder.make_cross_key_values(encoded),
            source_mask=source_mask,
            earlier=None,
            ancestry=jnp.zeros((batch_size, beam_size, max_length), jnp.int32),
            num_tokens=jnp.zeros((), jnp.int32),
            cross_weights=jnp.zeros((batch_size, beam_size, source_length))
            if keep_cross_weights
            else None,
        )

    def decode_step(
        self, tokens: Int[Array, "B W"], cache: DecoderCache
    ) -> tuple[Float[Array, "B W V"], DecoderCache]:
        """Read the last token of each hypothesis; return the next one's logits and the cache.

        Logits are NaN once the cache is full, after ``max_length`` steps.
        """
        states, cache = self.step_states(tokens, cache)
        return self.logits(states), cache

    def step_states(
        self, tokens: Int[Array, "B W"], cache: DecoderCache
    ) -> tuple[Float[Array, "B W D"], DecoderCache]:
        """Read as :meth:`decode_step` does; return states, which :meth:`logits` reads."""
        cache = add_step(cache)
        positions = jnp.broadcast_to(last_positions(cache), tokens.shape)
        states = self._sum_target_inputs(tokens, positions, deterministic=True)
        states, cache = self.decoder.step(mark_overflow(states, cache), cache, positions=positions)
        return scale_states(states, self.config), cache

    def _sum_target_inputs(
        self, target: Int[Array, "B T"], positions: Int[Array, "#B T"], *, deterministic: bool
    ) -> Float[Array, "B T D"]:
        return sum_inputs(
            self.target_embedding(target),
            positions,
            position_encoding=self.target_positions,
            norm=self.target_embedding_norm,
            dropout=self.embedding_dropout,
            deterministic=deterministic,
        )


def _make_key_mask(
    key_mask: Bool[Array, "B S"] | None,
    query_segment_ids: Int[Array, "B T"] | None,
    key_segment_ids: Int[Array, "B S"] | None,
) -> AttentionMask:
    """Return the mask of padded rows or of packed ones."""
    if key_mask is None:
        return AttentionMask(query_segment_ids=query_segment_ids, key_segment_ids=key_segment_ids)
    if key_segment_ids is not None:
        raise InputError("source_mask must be None when segment ids are given.")
    return AttentionMask(key_segment_ids=key_mask.astype(jnp.int32))
