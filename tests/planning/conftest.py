"""A tiny experiment whose sizes divide by any mesh of eight devices."""

import dataclasses
from pathlib import Path

import pytest
from tiny_experiment import make_tiny_experiment

from flax_transformer.data.pipeline import PipelineConfig
from flax_transformer.data.tokenizer import TokenizerConfig
from flax_transformer.models.transformer_config import TransformerConfig


@pytest.fixture(scope="session")
def experiment():
    return dataclasses.replace(
        make_tiny_experiment(Path("none")),
        model=TransformerConfig(
            architecture="decoder_only",
            model_dim=16,
            num_encoder_layers=0,
            num_decoder_layers=1,
            num_heads=4,
            feed_forward_dim=24,
            dropout_rate=0.0,
            max_positions=32,
            share_target_output_embedding=False,
        ),
        tokenizer=TokenizerConfig(vocab_size=320),
        pipeline=PipelineConfig(batch_tokens=16 * 12, max_length=12),
    )
