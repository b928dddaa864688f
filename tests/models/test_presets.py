"""Presets have the sizes of the paper, by counting parameters without making them."""

import dataclasses

import pytest

from flax_transformer.models.encoder_decoder import EncoderDecoder
from flax_transformer.models.parameters import abstract_parameters, num_parameters
from flax_transformer.models.presets import transformer_base, transformer_big, transformer_tiny


def count_parameters(config):
    return num_parameters(abstract_parameters(EncoderDecoder(config)))


@pytest.mark.parametrize(("preset", "millions"), [(transformer_base, 65), (transformer_big, 213)])
def test_presets_have_the_parameters_of_table_3(preset, millions):
    # The vocabulary of about 37000 tokens is shared by source and target (section 5.1).
    config = dataclasses.replace(
        preset(), source_vocab_size=37_000, target_vocab_size=37_000, scan_layers=True
    )
    assert count_parameters(config) / 1e6 == pytest.approx(millions, rel=0.04)


def test_tiny_has_a_million_parameters_beside_the_embedding():
    config = transformer_tiny()
    embedding = config.target_vocab_size * config.model_dim
    assert (count_parameters(config) - embedding) / 1e6 == pytest.approx(1, rel=0.1)


def test_big_drops_more_than_base():
    assert transformer_big().dropout_rate == 0.3
    assert transformer_base().dropout_rate == 0.1
