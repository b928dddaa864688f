"""Presets have the sizes of papers and of public models, counted without making parameters."""

import dataclasses

import pytest

from flax_transformer.models import presets
from flax_transformer.models.encoder_decoder import EncoderDecoder
from flax_transformer.models.make_model import make_model
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


@pytest.mark.parametrize(
    ("preset", "num_expected"),
    [
        (presets.bert_base, 109_514_298),
        (presets.bert_large, 335_174_458),
        (presets.distilbert_base, 66_985_530),
        (presets.gpt2, 124_439_808),
        (presets.gpt2_medium, 354_823_168),
        (presets.t5_small, 60_506_624),
        (presets.t5_base, 222_903_552),
        # What the transformers library counts, and the bias of the logits, a buffer there.
        (presets.bart_base, 139_420_416 + 50_265),
    ],
)
def test_presets_have_the_parameters_of_the_public_models(preset, num_expected):
    assert num_parameters(abstract_parameters(make_model(preset()))) == num_expected
