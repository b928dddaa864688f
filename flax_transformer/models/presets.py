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


def gpt3_175b() -> TransformerConfig:
    """Return the largest model of "Language Models are Few-Shot Learners" (table 2.1).

    Without its biases of attention and its sparse layers. The vocabulary of 50,257 tokens is padded
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
        scale_embedding=False,
    )
