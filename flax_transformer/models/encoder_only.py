"""The encoder alone: models such as BERT (arXiv 1810.04805), and what they end in."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from flax_transformer.array_types import Array, Bool, Float, Int
from flax_transformer.errors import InputError
from flax_transformer.models.inputs import (
    make_embedding,
    make_embedding_norm,
    make_positions,
    positions_of,
    sum_inputs,
)
from flax_transformer.models.outputs import make_logits
from flax_transformer.models.stack import Encoder
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.nn.attention_mask import AttentionMask
from flax_transformer.nn.dropout import Dropout
from flax_transformer.nn.embedding import Embedding, OutputProjection
from flax_transformer.nn.feed_forward import ACTIVATIONS
from flax_transformer.nn.linear import Linear
from flax_transformer.nn.normalization import make_norm


class MaskedLanguageModelHead(nn.Module):
    """A dense layer with activation and normalisation, before states are scored.

    Attributes:
        config: of the model.
    """

    config: TransformerConfig

    def setup(self) -> None:
        """Declare the dense layer and the normalisation."""
        self.transform = _linear(self.config, self.config.model_dim)
        self.norm = make_norm(self.config.norm, self.config.norm_epsilon)

    def __call__(self, states: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        """Transform final states."""
        return self.norm(ACTIVATIONS[self.config.activation](self.transform(states)))


class EncoderOnly(nn.Module):
    """A Transformer that reads a text in both directions.

    Plain use: ``model.apply({"params": params}, tokens, mask)``. What it returns depends on
    ``config.head``: final states ``[B, S, D]`` (``"none"``), logits of the token at each position
    ``[B, S, V]`` (``"masked_lm"``), of the class of the text ``[B, labels]``
    (``"sequence_classification"``) or of each position ``[B, S, labels]``
    (``"token_classification"``); logits are float32. Dropout and ids outside the vocabulary are
    treated as in :class:`~flax_transformer.models.encoder_decoder.EncoderDecoder`.
    """

    config: TransformerConfig

    def setup(self) -> None:
        """Declare the embeddings, the layers and the head."""
        config = self.config
        self.source_embedding = make_embedding(config, config.source_vocab_size)
        self.source_positions = make_positions(config)
        self.source_embedding_norm = make_embedding_norm(config)
        if config.num_token_types:
            self.token_type_embedding = Embedding(
                config.num_token_types, config.model_dim, False, config.compute_dtype
            )
        self.embedding_dropout = Dropout(config.dropout_rate)
        self.encoder = Encoder(config, config.num_encoder_layers)
        if config.pooler != "none":
            self.pooler = _linear(config, config.model_dim)
        if config.head == "masked_lm":
            self.masked_lm_head = MaskedLanguageModelHead(config)
            self.output_embedding = (
                self.source_embedding
                if config.share_target_output_embedding
                else make_embedding(config, config.target_vocab_size)
            )
            self.output_bias = (
                self.param("output_bias", nn.initializers.zeros, (config.target_vocab_size,))
                if config.output_bias
                else None
            )
        elif config.head != "none":
            self.classifier_dropout = Dropout(config.dropout_rate)
            self.classifier = _linear(config, config.num_labels)

    def __call__(
        self,
        tokens: Int[Array, "B S"],
        mask: Bool[Array, "B S"] | None = None,
        *,
        segment_ids: Int[Array, "B S"] | None = None,
        positions: Int[Array, "B S"] | None = None,
        token_types: Int[Array, "B S"] | None = None,
        deterministic: bool = True,
    ) -> Float[Array, "..."]:
        """Return what the head makes of the final states; see the class.

        Args:
            tokens: to read.
            mask: True on the tokens; None where there is no padding.
            segment_ids: for packed rows, in place of ``mask``: texts numbered from 1; 0 is padding.
                A text's class cannot be asked of packed rows.
            positions: for packed rows; None counts from the row's start.
            token_types: kind of segment of each token, such as first or second sentence; None
                for 0.
            deterministic: without dropout.

        Raises:
            InputError: a row is longer than ``max_positions``, or a mask and segments are mixed.
        """
        states = self.encode(
            tokens,
            mask,
            segment_ids=segment_ids,
            positions=positions,
            token_types=token_types,
            deterministic=deterministic,
        )
        match self.config.head:
            case "none":
                return states
            case "masked_lm":
                return self.logits(self.masked_lm_head(states))
            case "sequence_classification":
                if segment_ids is not None:
                    raise InputError("segment_ids must be None to classify sequences.")
                return self._classify(self.pool(states), deterministic=deterministic)
            case "token_classification":
                return self._classify(states, deterministic=deterministic)

    def encode(
        self,
        tokens: Int[Array, "B S"],
        mask: Bool[Array, "B S"] | None = None,
        *,
        segment_ids: Int[Array, "B S"] | None = None,
        positions: Int[Array, "B S"] | None = None,
        token_types: Int[Array, "B S"] | None = None,
        deterministic: bool = True,
    ) -> Float[Array, "B S D"]:
        """Return the final states; arguments as for :meth:`__call__`."""
        config = self.config
        if segment_ids is not None and mask is not None:
            raise InputError("mask must be None when segment ids are given.")
        attention_mask = AttentionMask(
            query_segment_ids=segment_ids,
            key_segment_ids=segment_ids if mask is None else mask.astype(jnp.int32),
            sparsity=config.encoder_sparsity,
        )
        positions = positions_of(tokens, positions, limit=config.position_limit)
        embedded = self.source_embedding(tokens)
        if config.num_token_types:
            types = jnp.zeros_like(tokens) if token_types is None else token_types
            embedded = embedded + self.token_type_embedding(types)
        elif token_types is not None:
            raise InputError("token_types must be None for a model without num_token_types.")
        states = sum_inputs(
            embedded,
            positions,
            position_encoding=self.source_positions,
            norm=self.source_embedding_norm,
            dropout=self.embedding_dropout,
            deterministic=deterministic,
        )
        return self.encoder(
            states, attention_mask, positions=positions, deterministic=deterministic
        )

    def pool(self, states: Float[Array, "B S D"]) -> Float[Array, "B D"]:
        """Return a vector for each text, made of the state of its first position.

        Raises:
            InputError: the config has no pooler.
        """
        if self.config.pooler == "none":
            raise InputError("config.pooler must be tanh or relu to pool states, got none.")
        activate = jnp.tanh if self.config.pooler == "tanh" else jax.nn.relu
        return activate(self.pooler(states[:, 0]))

    def logits(self, states: Float[Array, "*B D"]) -> Float[Array, "*B V"]:
        """Return the float32 logits of the token at each state of the masked-LM head."""
        return make_logits(states, self.output_projection(), self.config)

    def output_projection(self) -> OutputProjection:
        """Return what states of the masked-LM head are scored with, token by token."""
        return OutputProjection(self.output_embedding.embedding, self.output_bias)

    def _classify(
        self, states: Float[Array, "*B D"], *, deterministic: bool
    ) -> Float[Array, "*B labels"]:
        states = self.classifier_dropout(states, deterministic=deterministic)
        return self.classifier(states).astype(jnp.float32)


def _linear(config: TransformerConfig, features: int) -> Linear:
    return Linear(
        (features,),
        use_bias=True,
        dtype=config.compute_dtype,
        product_dtype=config.product_dtype or config.compute_dtype,
    )
