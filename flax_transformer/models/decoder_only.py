"""The decoder without an encoder: language models such as GPT (Radford et al., 2018)."""

import flax.linen as nn

from flax_transformer.array_types import Array, Float, Int
from flax_transformer.models.inputs import make_embedding, make_positions, positions_of
from flax_transformer.models.stack import Encoder
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.nn.dropout import Dropout
from flax_transformer.nn.embedding import score_tokens
from flax_transformer.nn.masks import make_causal_mask, make_segment_mask
from flax_transformer.parallel.activation_sharding import constrain


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
        self.embedding_dropout = Dropout(config.dropout_rate)
        # A decoder that reads no encoder has the layers of one, under a causal mask.
        self.decoder = Encoder(config, config.num_decoder_layers)
        if not config.share_target_output_embedding:
            self.output_embedding = make_embedding(config, config.target_vocab_size)

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
        mask = make_causal_mask(tokens.shape[1])
        if segment_ids is not None:
            mask &= make_segment_mask(segment_ids, segment_ids)
        positions = positions_of(tokens, positions, max_positions=self.config.max_positions)
        states = self.target_embedding(tokens)
        states = states + self.target_positions(positions).astype(states.dtype)
        states = constrain(states, "batch", "state_length", "_")
        states = self.embedding_dropout(states, deterministic=deterministic)
        return self.decoder(states, mask, deterministic=deterministic)

    def logits(self, states: Float[Array, "*B D"]) -> Float[Array, "*B V"]:
        """Return the float32 logits of the token after each state."""
        product_dtype = self.config.product_dtype or self.config.compute_dtype
        return score_tokens(states, self.output_table(), product_dtype=product_dtype)

    def output_table(self) -> Float[Array, "V D"]:
        """Return the table that states are scored against, token by token."""
        if self.config.share_target_output_embedding:
            return self.target_embedding.embedding
        return self.output_embedding.embedding
