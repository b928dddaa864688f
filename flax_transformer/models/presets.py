"""Configs of well-known models, as their public checkpoints have them."""

import dataclasses

from flax_transformer.models.transformer_config import TransformerConfig


def transformer_tiny() -> TransformerConfig:
    """Return a model for small data sets and CPUs.

    2 + 2 layers of 128: one million parameters beside the embedding.
    """
    return TransformerConfig(
        model_dim=128,
        num_encoder_layers=2,
        num_decoder_layers=2,
        num_heads=4,
        feed_forward_dim=512,
    )


def transformer_base() -> TransformerConfig:
    """Return the base model of "Attention Is All You Need" (table 3)."""
    return TransformerConfig()


def transformer_big() -> TransformerConfig:
    """Return the big model of "Attention Is All You Need" (table 3, English to German)."""
    return TransformerConfig(model_dim=1024, num_heads=16, feed_forward_dim=4096, dropout_rate=0.3)


def gpt3_175b() -> TransformerConfig:
    """Return the largest model of "Language Models are Few-Shot Learners" (table 2.1).

    Without its sparse layers. The vocabulary of 50,257 tokens is padded
    to a multiple of 128, so that it can be split over devices.
    """
    return TransformerConfig(
        architecture="decoder_only",
        source_vocab_size=50_304,
        target_vocab_size=50_304,
        model_dim=12_288,
        num_encoder_layers=0,
        num_decoder_layers=96,
        num_heads=96,
        feed_forward_dim=4 * 12_288,
        activation="gelu_tanh",
        pre_norm=True,
        norm_epsilon=1e-5,
        position_encoding="learned",
        max_positions=2048,
        attention_bias=True,
        scale_embedding=False,
    )


def bert_base() -> TransformerConfig:
    """Return the base model of BERT (arXiv 1810.04805), uncased, with its masked-LM head."""
    return TransformerConfig(
        architecture="encoder_only",
        source_vocab_size=30_522,
        target_vocab_size=30_522,
        model_dim=768,
        num_encoder_layers=12,
        num_decoder_layers=0,
        num_heads=12,
        attention_bias=True,
        feed_forward_dim=3072,
        activation="gelu",
        norm_epsilon=1e-12,
        embedding_norm=True,
        attention_dropout_rate=0.1,
        position_encoding="learned",
        max_positions=512,
        num_token_types=2,
        scale_embedding=False,
        output_bias=True,
        head="masked_lm",
    )


def bert_large() -> TransformerConfig:
    """Return the large model of BERT (arXiv 1810.04805), uncased, with its masked-LM head."""
    return dataclasses.replace(
        bert_base(), model_dim=1024, num_encoder_layers=24, num_heads=16, feed_forward_dim=4096
    )


def distilbert_base() -> TransformerConfig:
    """Return DistilBERT (arXiv 1910.01108): BERT with half of the layers and without types."""
    return dataclasses.replace(bert_base(), num_encoder_layers=6, num_token_types=0)


def gpt2() -> TransformerConfig:
    """Return the small model of GPT-2 (Radford et al., 2019)."""
    return TransformerConfig(
        architecture="decoder_only",
        source_vocab_size=50_257,
        target_vocab_size=50_257,
        model_dim=768,
        num_encoder_layers=0,
        num_decoder_layers=12,
        num_heads=12,
        attention_bias=True,
        feed_forward_dim=3072,
        activation="gelu_tanh",
        pre_norm=True,
        norm_epsilon=1e-5,
        attention_dropout_rate=0.1,
        position_encoding="learned",
        max_positions=1024,
        scale_embedding=False,
    )


def gpt2_medium() -> TransformerConfig:
    """Return the medium model of GPT-2 (Radford et al., 2019)."""
    return dataclasses.replace(
        gpt2(), model_dim=1024, num_decoder_layers=24, num_heads=16, feed_forward_dim=4096
    )


def t5_small() -> TransformerConfig:
    """Return the small model of T5 (arXiv 1910.10683, version 1.0)."""
    return TransformerConfig(
        source_vocab_size=32_128,
        target_vocab_size=32_128,
        model_dim=512,
        num_encoder_layers=6,
        num_decoder_layers=6,
        num_heads=8,
        head_dim=64,
        scale_attention=False,
        feed_forward_dim=2048,
        feed_forward_bias=False,
        pre_norm=True,
        norm="rms",
        attention_dropout_rate=0.1,
        feed_forward_dropout_rate=0.1,
        position_encoding="relative",
        max_positions=512,
        scale_embedding=False,
        scale_output=True,
    )


def t5_base() -> TransformerConfig:
    """Return the base model of T5 (arXiv 1910.10683, version 1.0)."""
    return dataclasses.replace(
        t5_small(),
        model_dim=768,
        num_encoder_layers=12,
        num_decoder_layers=12,
        num_heads=12,
        feed_forward_dim=3072,
    )


def bart_base() -> TransformerConfig:
    """Return the base model of BART (arXiv 1910.13461)."""
    return TransformerConfig(
        source_vocab_size=50_265,
        target_vocab_size=50_265,
        model_dim=768,
        num_encoder_layers=6,
        num_decoder_layers=6,
        num_heads=12,
        attention_bias=True,
        feed_forward_dim=3072,
        activation="gelu",
        norm_epsilon=1e-5,
        embedding_norm=True,
        attention_dropout_rate=0.1,
        feed_forward_dropout_rate=0.1,
        position_encoding="learned",
        position_offset=2,
        max_positions=1024,
        scale_embedding=False,
        output_bias=True,
    )


def marian_base() -> TransformerConfig:
    """Return the shape of the OPUS-MT models (Tiedemann and Thottingal, 2020).

    The vocabulary is that of English to German; it differs from pair to pair.
    """
    return TransformerConfig(
        source_vocab_size=58_101,
        target_vocab_size=58_101,
        attention_bias=True,
        activation="silu",
        norm_epsilon=1e-5,
        sinusoid_layout="halves",
        max_positions=512,
        output_bias=True,
    )
