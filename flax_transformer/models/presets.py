"""Configs of well-known models."""

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
