"""The decoder without an encoder: language models such as GPT (Radford et al., 2018)."""

import flax.linen as nn
import jax.numpy as jnp

from flax_transformer.array_types import Array, Bool, Float, Int
from flax_transformer.models.decoder_cache import (
    DecoderCache,
    EarlierTokens,
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
from flax_transformer.models.stack import Encoder
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.nn.attention_mask import AttentionMask
from flax_transformer.nn.dropout import Dropout
from flax_transformer.nn.embedding import OutputProjection
from flax_transformer.nn.kv_cache import write_prompt
from flax_transformer.nn.masks import make_causal_mask, make_padding_mask


class DecoderOnly(nn.Module):
    """A Transformer that predicts each token from those before it.

    Plain use: ``model.apply({"params": params}, tokens)``. Packed rows, dropout and ids outside the
    vocabulary are treated as in :class:`~flax_transformer.models.encoder_decoder.EncoderDecoder`.
    """

    config: TransformerConfig

    def setup(self) -> None:
        """Declare the embeddings, the layers and the output projection."""
        config = self.config
        self.target_embedding = make_embedding(config, config.target_vocab_size)
        self.target_positions = make_positions(config)
        self.target_embedding_norm = make_embedding_norm(config)
        self.embedding_dropout = Dropout(config.dropout_rate)
        # A decoder that reads no encoder has the layers of one, under a causal mask.
        self.decoder = Encoder(config, config.num_decoder_layers, bidirectional=False)
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
        tokens: Int[Array, "B T"],
        *,
        segment_ids: Int[Array, "B T"] | None = None,
        positions: Int[Array, "B T"] | None = None,
        deterministic: bool = True,
    ) -> Float[Array, "B T V"]:
        """Return float32 logits of the token after each position.

        Args:
            tokens: what is read; padding on the right changes nothing.
            segment_ids: for packed rows: texts numbered from 1; 0 is padding.
            positions: for packed rows; None counts from the row's start.
            deterministic: without dropout.

        Raises:
            InputError: a row is longer than ``max_positions``.
        """
        states = self.decode(
            tokens, segment_ids=segment_ids, positions=positions, deterministic=deterministic
        )
        return self.logits(states)

    def decode(
        self,
        tokens: Int[Array, "B T"],
        *,
        segment_ids: Int[Array, "B T"] | None = None,
        positions: Int[Array, "B T"] | None = None,
        deterministic: bool = True,
    ) -> Float[Array, "B T D"]:
        """Return the last layer's states, which :meth:`logits` reads; arguments as above."""
        mask = AttentionMask(
            causal=True, query_segment_ids=segment_ids, key_segment_ids=segment_ids
        )
        positions = positions_of(tokens, positions, limit=self.config.position_limit)
        states = self._sum_inputs(tokens, positions, deterministic=deterministic)
        states = self.decoder(states, mask, positions=positions, deterministic=deterministic)
        return scale_states(states, self.config)

    def logits(self, states: Float[Array, "*B D"]) -> Float[Array, "*B V"]:
        """Return the float32 logits of the token after each state."""
        return make_logits(states, self.output_projection(), self.config)

    def output_projection(self) -> OutputProjection:
        """Return what final states are scored with, token by token."""
        return OutputProjection(self.output_embedding.embedding, self.output_bias)

    def init_cache(
        self,
        prompt: Int[Array, "B P"],
        prompt_mask: Bool[Array, "B P"] | None = None,
        *,
        beam_size: int = 1,
        max_length: int,
    ) -> DecoderCache:
        """Read all prompts but for their last tokens, which the first step reads.

        Args:
            prompt: tokens, of any number in each row.
            prompt_mask: True on the prompts' tokens; None where there is no padding.
            beam_size: hypotheses of each prompt, W; they share the prompt's keys and values.
            max_length: tokens that a hypothesis may have beside the prompt.

        Raises:
            InputError: prompt and ``max_length`` are over ``max_positions``, where there is no
                mask; ``max_length`` is alone; or the layers are stacked.
        """
        config = self.config
        batch_size, prompt_length = prompt.shape
        # Positions are counted by the mask, which says only when it runs how many there are.
        check_can_decode(config, max_length, prompt_length if prompt_mask is None else 1)
        is_token = jnp.ones(prompt.shape, bool) if prompt_mask is None else prompt_mask
        counts = jnp.cumsum(is_token, axis=1, dtype=jnp.int32)
        is_read = is_token & (counts < counts[:, -1:])
        positions = jnp.maximum(counts - 1, 0)
        states = self._sum_inputs(prompt, positions, deterministic=True)
        mask = make_causal_mask(prompt_length) & make_padding_mask(is_read)
        read = self.decoder.prefill(states, mask, positions=positions)
        empty = init_self_attention(config, batch_size, prompt_length + max_length * beam_size)
        return DecoderCache(
            self_attention=tuple(map(write_prompt, empty, read)),
            cross_attention=(),
            source_mask=None,
            earlier=EarlierTokens(
                mask=jnp.broadcast_to(is_read[:, None], (batch_size, beam_size, prompt_length)),
                positions=positions,
                next_position=is_read.sum(axis=1, dtype=jnp.int32),
            ),
            ancestry=jnp.zeros((batch_size, beam_size, max_length), jnp.int32),
            num_tokens=jnp.zeros((), jnp.int32),
            cross_weights=None,
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
        states = self._sum_inputs(tokens, positions, deterministic=True)
        states, cache = self.decoder.step(mark_overflow(states, cache), cache, positions=positions)
        return scale_states(states, self.config), cache

    def _sum_inputs(
        self, tokens: Int[Array, "B T"], positions: Int[Array, "#B T"], *, deterministic: bool
    ) -> Float[Array, "B T D"]:
        return sum_inputs(
            self.target_embedding(tokens),
            positions,
            position_encoding=self.target_positions,
            norm=self.target_embedding_norm,
            dropout=self.embedding_dropout,
            deterministic=deterministic,
        )
