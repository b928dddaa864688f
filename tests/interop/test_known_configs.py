"""The configs of well-known models are accepted, and give models of the published sizes."""

import json
from pathlib import Path
from typing import Any

import pytest

from flax_transformer.errors import InputError
from flax_transformer.interop.family_registry import find_member, read_member
from flax_transformer.models.make_model import make_model
from flax_transformer.models.parameters import abstract_parameters, num_parameters

CONFIGS: dict[str, dict[str, Any]] = json.loads(
    Path(__file__).with_name("known_configs.json").read_text()
)

NUM_PARAMETERS = {
    "bert-base-uncased": 109_514_298,
    "bert-multi": 177_974_523,
    "sst2": 66_955_010,
    "roberta-base": 124_697_433,
    "gpt2": 124_439_808,
    "t5-small": 60_506_624,
    "flan-t5": 247_577_856,
    "bart-base": 139_420_416,
    "bart-large-cnn": 406_290_432 + 50_264,
    "opus-mt-en-de": 73_886_208 + 58_101,  # with the bias of the logits, a buffer there
    "llama2": 6_738_415_616,
    "smol": 134_515_008,
    "gpt2-medium": 354_823_168,
    "gpt2-xl": 1_557_611_200,
    "smollm2-instruct": 134_515_008,
    "tinyllama": 1_100_048_384,
    "llama-3.2-1b": 1_235_814_400,
    "mistral-7b-v0.3": 7_248_023_552,
    "opus-mt-en-romance": 77_419_008 + 65_001,
    "t5-v1_1-small": 76_961_152,
    "distilbart-cnn": 305_510_400 + 50_264,
}


@pytest.mark.parametrize("name", CONFIGS)
def test_sizes(name: str) -> None:
    member = read_member(CONFIGS[name], "config.json")
    assert member.class_name == CONFIGS[name]["architectures"][0]
    assert num_parameters(abstract_parameters(make_model(member.config))) == NUM_PARAMETERS[name]
    written_as = member.class_name.replace("Mistral", "Llama")
    assert find_member(member.config).class_name == written_as


FULL_DUMP = {
    "return_dict": True, "output_hidden_states": False, "output_attentions": False,
    "torchscript": False, "use_bfloat16": False, "tf_legacy_loss": False, "pruned_heads": {},
    "chunk_size_feed_forward": 0, "is_decoder": False, "cross_attention_hidden_size": None,
    "add_cross_attention": False, "tie_encoder_decoder": False, "max_length": 20, "min_length": 0,
    "do_sample": False, "early_stopping": False, "num_beams": 1, "num_beam_groups": 1,
    "diversity_penalty": 0.0, "temperature": 1.0, "top_k": 50, "top_p": 1.0, "typical_p": 1.0,
    "repetition_penalty": 1.0, "length_penalty": 1.0, "no_repeat_ngram_size": 0,
    "encoder_no_repeat_ngram_size": 0, "bad_words_ids": None, "num_return_sequences": 1,
    "output_scores": False, "return_dict_in_generate": False, "remove_invalid_values": False,
    "forced_bos_token_id": None, "exponential_decay_length_penalty": None,
    "suppress_tokens": None, "begin_suppress_tokens": None, "finetuning_task": None,
    "tokenizer_class": None, "prefix": None, "problem_type": None, "sep_token_id": None,
    "max_sequence_length": 4096, "unsloth_version": "2025.1", "unsloth_fixed": True,
}  # fmt: skip
"""What version 4 of the library wrote for every model, where nothing says otherwise."""


@pytest.mark.parametrize("name", CONFIGS)
def test_a_full_dump_is_the_same_model(name: str) -> None:
    full = read_member(FULL_DUMP | CONFIGS[name], "config.json")
    assert full == read_member(CONFIGS[name], "config.json")


@pytest.mark.parametrize(
    ("name", "value"),
    [("add_cross_attention", True), ("tie_encoder_decoder", True), ("begin_suppress_tokens", [3])],
)
@pytest.mark.parametrize("model", ["bert-base-uncased", "t5-small", "llama2"])
def test_a_full_dump_that_asks_for_more_is_refused(model: str, name: str, value: Any) -> None:
    with pytest.raises(InputError, match=name):
        read_member(FULL_DUMP | CONFIGS[model] | {name: value}, "config.json")


@pytest.mark.parametrize("name", ["rope_scaling", "rope_parameters"])
def test_the_base_of_rotary_positions_may_lie_within_or_beside(name: str) -> None:
    def base_of(**values: Any) -> float:
        return read_member(CONFIGS["llama2"] | values, "config.json").config.rotary_base

    within = {name: {"rope_type": "default", "rope_theta": 5e5}}
    assert base_of(**within) == base_of(**within, rope_theta=3.0) == base_of(rope_theta=5e5) == 5e5
    assert base_of(**{name: {"type": "linear", "factor": 2.0}}, rope_theta=5e5) == 5e5


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        (
            "llama2",
            {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
            "rope_scaling: low_freq_factor must be a number, got nothing",
        ),
        (
            "llama2",
            {"rope_parameters": {"rope_type": "yarn"}},
            "rope_type must be one of default, linear, llama3, got 'yarn'",
        ),
        ("llama2", {"rope_scaling": {"type": "dynamic"}}, "type must be one of .*, got 'dynamic'"),
        (
            "llama2",
            {"rope_scaling": {"type": "linear", "rope_type": "llama3"}},
            "low_freq_factor|factor|type must",
        ),
        (
            "llama2",
            {"rope_scaling": {"rope_type": "default"}, "rope_parameters": {"rope_theta": 5.0}},
            "rope_parameters must be {'rope_type': 'default'}",
        ),
        ("mistral-7b-v0.3", {"sliding_window": 4096}, "sliding_window must be null or at least .*"),
        ("roberta-base", {"hidden_act": "relu"}, "hidden_act must be 'gelu'"),
        ("opus-mt-en-de", {"max_position_embeddings": 10**12}, "max_position_embeddings must be"),
        ("opus-mt-en-de", {"d_model": 10**12}, "max_position_embeddings must be at most 0"),
        ("llama2", {"pretraining_tp": 2}, "pretraining_tp must be 1"),
        ("bert-base-uncased", {"position_embedding_type": "relative_key"}, "must be 'absolute'"),
        ("bert-base-uncased", {"is_decoder": True}, "is_decoder must be False"),
        ("bert-base-uncased", {"type_vocab_size": 0}, "type_vocab_size must be at least 1"),
        ("roberta-base", {"max_position_embeddings": 2}, "max_position_embeddings must be over 2"),
        ("sst2", {"pruned_heads": {"0": [1]}}, "pruned_heads must be {}"),
        ("gpt2", {"add_cross_attention": True}, "add_cross_attention must be False"),
        ("t5-small", {"feed_forward_proj": "gated"}, "feed_forward_proj must be one of"),
        ("bart-base", {"decoder_attention_heads": 3}, "decoder_attention_heads must be 12"),
        ("bart-base", {"normalize_before": True}, "normalize_before must be False"),
        ("opus-mt-en-de", {"normalize_embedding": True}, "normalize_embedding must be False"),
        ("opus-mt-en-de", {"layer_norm_eps": 1e-6}, "must not have the attribute 'layer_norm_eps'"),
    ],
)
def test_what_changes_the_computation_is_refused_by_name(
    name: str, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_member(CONFIGS[name] | values, "config.json")
    assert str(caught.value).startswith("config.json")
