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
}


@pytest.mark.parametrize("name", CONFIGS)
def test_sizes(name: str) -> None:
    member = read_member(CONFIGS[name], "config.json")
    assert member.class_name == CONFIGS[name]["architectures"][0]
    assert num_parameters(abstract_parameters(make_model(member.config))) == NUM_PARAMETERS[name]
    assert find_member(member.config).class_name == member.class_name


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("llama2", {"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "rope_scaling must"),
        ("llama2", {"rope_parameters": {"rope_type": "yarn"}}, "rope_type must be 'default'"),
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
