"""Configs that cannot work are refused, with the field and the reason."""

import pytest

from flax_transformer.errors import InputError
from flax_transformer.models.transformer_config import TransformerConfig

NAN, INFINITY = float("nan"), float("inf")

SIZES = (
    "source_vocab_size",
    "target_vocab_size",
    "model_dim",
    "num_encoder_layers",
    "num_decoder_layers",
    "num_heads",
    "num_key_value_heads",
    "head_dim",
    "feed_forward_dim",
    "num_relative_buckets",
    "max_relative_distance",
    "max_positions",
    "rotary_original_positions",
)
COUNTS = ("position_offset", "num_token_types", "num_labels")
RATES = ("dropout_rate", "attention_dropout_rate", "feed_forward_dropout_rate")
SWITCHES = (
    "attention_bias",
    "scale_attention",
    "gated_feed_forward",
    "feed_forward_bias",
    "embedding_norm",
    "pre_norm",
    "scale_embedding",
    "share_source_target_embedding",
    "share_target_output_embedding",
    "scale_output",
    "output_bias",
    "scan_layers",
)
CHOICES = (
    "architecture",
    "activation",
    "norm",
    "head",
    "pooler",
    "position_encoding",
    "sinusoid_layout",
    "param_dtype",
    "compute_dtype",
    "remat",
    "attention_implementation",
    "rotary_scaling",
)


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("value", [0, -8, 8.0, NAN, INFINITY, True, "8", (8,)])
def test_sizes_are_whole_numbers_from_one(name, value):
    with pytest.raises(InputError, match=f"^{name} must be a whole number of at least 1, got "):
        TransformerConfig(**{name: value})


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("value", [-1, 1.0, True, None])
def test_counts_are_whole_numbers_from_zero(name, value):
    with pytest.raises(InputError, match=f"^{name} must be a whole number of at least 0, got "):
        TransformerConfig(**{name: value})


@pytest.mark.parametrize("name", sorted({*SIZES} - {"head_dim", "num_key_value_heads"}))
def test_only_the_heads_may_be_left_open(name):
    with pytest.raises(InputError, match=f"^{name} must be"):
        TransformerConfig(**{name: None})
    assert TransformerConfig(model_dim=24, num_heads=3).layer_config().head_dim == 8
    assert TransformerConfig(model_dim=24, num_heads=5, head_dim=7).layer_config().head_dim == 7


@pytest.mark.parametrize("name", RATES)
@pytest.mark.parametrize("value", [1.0, 1, -0.1, NAN, INFINITY, True, False, "0.1", None])
def test_rates_are_numbers_below_one(name, value):
    with pytest.raises(InputError, match=rf"^{name} must be a number in \[0, 1\), got "):
        TransformerConfig(**{name: value})


@pytest.mark.parametrize("value", [0.0, -1e-6, 1.0, NAN, INFINITY, True, "1e-6", None])
def test_epsilon_is_a_number_between_zero_and_one(value):
    with pytest.raises(InputError, match=r"^norm_epsilon must be a number in \(0, 1\), got "):
        TransformerConfig(norm_epsilon=value)


@pytest.mark.parametrize("name", SWITCHES)
@pytest.mark.parametrize("value", ["no", 0, 1, None])
def test_switches_are_true_or_false(name, value):
    with pytest.raises(InputError, match=f"^{name} must be True or False, got "):
        TransformerConfig(**{name: value})


@pytest.mark.parametrize("name", CHOICES)
@pytest.mark.parametrize("value", ["", "Relu", "float64", None, 3, ["relu"]])
def test_choices_name_what_there_is(name, value):
    with pytest.raises(InputError, match=f"^{name} must be one of [a-z0-9_]+, .*, got "):
        TransformerConfig(**{name: value})


def test_products_have_the_dtype_of_the_states_unless_named():
    assert TransformerConfig(compute_dtype="bfloat16").layer_config().product_dtype == "bfloat16"
    config = TransformerConfig(product_dtype="bfloat16").layer_config()
    assert (config.dtype, config.product_dtype) == ("float32", "bfloat16")
    with pytest.raises(InputError, match=r"^product_dtype must be one of float32, bfloat16"):
        TransformerConfig(product_dtype="int8")


def test_every_field_is_checked_by_a_test():
    others = {"norm_epsilon", "encoder_sparsity", "rotary_base", "rotary_factor"}
    others |= {"rotary_low_frequency_factor", "rotary_high_frequency_factor"}
    fields = {*SIZES, *COUNTS, *RATES, *SWITCHES, *CHOICES, *others, "product_dtype"}
    assert fields == set(TransformerConfig.__dataclass_fields__)


def test_a_decoder_alone_has_no_encoder_layers():
    with pytest.raises(InputError, match="num_encoder_layers must be 0 when architecture is"):
        TransformerConfig(architecture="decoder_only")
    config = TransformerConfig(architecture="decoder_only", num_encoder_layers=0)
    assert config.num_encoder_layers == 0


def test_heads_must_divide_the_model():
    with pytest.raises(InputError, match=r"model_dim must be a multiple of num_heads, .*head_dim"):
        TransformerConfig(model_dim=22, num_heads=3)


def test_sinusoids_need_pairs():
    with pytest.raises(InputError, match="model_dim must be even for sinusoidal positions, got 21"):
        TransformerConfig(model_dim=21, num_heads=3)
    assert TransformerConfig(model_dim=21, num_heads=3, position_encoding="learned").model_dim == 21


def test_a_shared_table_needs_one_vocabulary():
    with pytest.raises(InputError, match=r"source_vocab_size and target_vocab_size must be equal"):
        TransformerConfig(source_vocab_size=7, target_vocab_size=11)


def test_a_config_is_hashable_and_does_not_change():
    config = TransformerConfig()
    assert hash(config) == hash(TransformerConfig())
    with pytest.raises(AttributeError):
        config.model_dim = 8


ENCODER = {"architecture": "encoder_only", "num_decoder_layers": 0}
DECODER = {"architecture": "decoder_only", "num_encoder_layers": 0}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({**ENCODER, "num_decoder_layers": 1}, "num_decoder_layers must be 0 when"),
        ({**ENCODER, "num_encoder_layers": 0}, "num_encoder_layers must be a whole number"),
        ({**DECODER, "num_encoder_layers": 2}, "num_encoder_layers must be 0 when"),
        ({**DECODER, "source_vocab_size": 7}, "source_vocab_size and target_vocab_size must be eq"),
        ({**DECODER, "num_token_types": 2}, "num_token_types must be 0 unless"),
        ({"num_key_value_heads": 3}, "num_key_value_heads must divide num_heads, got 3 and 8"),
        ({"rotary_base": 0.5}, "rotary_base must be a number above 1, got 0.5"),
        ({"rotary_base": "10000"}, "rotary_base must be a number above 1, got '10000'"),
        ({"rotary_factor": 0.5}, "rotary_factor must be a number of at least 1, got 0.5"),
        ({"rotary_factor": INFINITY}, "rotary_factor must be a number of at least 1, got inf"),
        ({"rotary_low_frequency_factor": 4.0}, "rotary_low_frequency_factor must .* 4.0 and 4.0"),
        ({"rotary_high_frequency_factor": "4"}, "rotary_low_frequency_factor must be .* and '4'"),
        (
            {"position_encoding": "rotary", "head_dim": 7},
            "the size of a head must be even for rotary positions, got 7",
        ),
        ({"position_offset": 2}, "position_offset must be 0 unless"),
        (
            {"position_encoding": "relative", "num_relative_buckets": 30},
            "num_relative_buckets must be a multiple of 4",
        ),
        (
            {"position_encoding": "relative", "max_relative_distance": 16},
            "less than twice max_relative_distance, got 32 and 16",
        ),
        ({"head": "masked_lm"}, "head and pooler must be none unless"),
        ({**DECODER, "pooler": "tanh"}, "head and pooler must be none unless"),
        ({**ENCODER, "num_labels": 3}, "num_labels must be at least 1 with a classification head"),
        ({**ENCODER, "head": "token_classification"}, "num_labels must be at least 1 with"),
        (
            {**ENCODER, "head": "sequence_classification", "num_labels": 2},
            "pooler must be tanh or relu to classify sequences",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        TransformerConfig(**changes)
