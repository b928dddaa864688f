"""Tensors under other names than those that are written: found, or refused, but never ignored."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chex
import numpy as np
import pytest
from tiny_public_models import make_public

from flax_transformer.errors import InputError
from flax_transformer.interop.hub import choose_patterns
from flax_transformer.interop.pretrained import load_pretrained, save_pretrained
from flax_transformer.interop.safetensors_io import load_tensors, save_tensors

WEIGHTS = "model.safetensors"
LLAMA_TABLE = "model.embed_tokens.weight"


def change_tensors(directory: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    tensors = {name: np.array(each) for name, each in load_tensors(directory / WEIGHTS).items()}
    change(tensors)
    save_tensors(directory / WEIGHTS, tensors)


@pytest.mark.parametrize(
    ("class_name", "name", "alias", "choices"),
    [
        ("T5ForConditionalGeneration", "shared.weight", "encoder.embed_tokens.weight", {}),
        ("T5ForConditionalGeneration", "shared.weight", "lm_head.weight", {}),
        ("GPT2LMHeadModel", "transformer.wte.weight", "lm_head.weight", {}),
        (
            "LlamaForCausalLM",
            LLAMA_TABLE,
            "lm_head.weight",
            {"share_target_output_embedding": True},
        ),
        ("MarianMTModel", "model.shared.weight", "lm_head.weight", {}),
        ("BertForMaskedLM", "cls.predictions.bias", "cls.predictions.decoder.bias", {}),
    ],
)
def test_a_tied_table_is_found_under_the_name_of_a_copy(
    tmp_path: Path, class_name: str, name: str, alias: str, choices: dict[str, Any]
) -> None:
    saved = make_public(class_name, **choices)
    save_pretrained(saved, tmp_path / "model")
    change_tensors(tmp_path / "model", lambda tensors: tensors.update({alias: tensors.pop(name)}))
    loaded = load_pretrained(tmp_path / "model")
    chex.assert_trees_all_equal(loaded.params, saved.params)


def test_an_output_table_of_its_own_stands_for_no_embedding(tmp_path: Path) -> None:
    save_pretrained(make_public("LlamaForCausalLM"), tmp_path / "model")
    change_tensors(tmp_path / "model", lambda tensors: tensors.pop(LLAMA_TABLE))
    with pytest.raises(InputError, match=f"{LLAMA_TABLE} is missing"):
        load_pretrained(tmp_path / "model")


def test_an_output_table_that_differs_is_no_copy_of_the_embedding(tmp_path: Path) -> None:
    """The copy of the encoder stands for the shared table; that of the output is one of its own."""
    saved = make_public("T5ForConditionalGeneration")
    save_pretrained(saved, tmp_path / "model")

    def rename(tensors: dict[str, np.ndarray]) -> None:
        table = tensors.pop("shared.weight")
        tensors.update({"encoder.embed_tokens.weight": table, "lm_head.weight": table + 1})

    change_tensors(tmp_path / "model", rename)
    params = load_pretrained(tmp_path / "model").params
    table = saved.params["target_embedding"]["embedding"]
    chex.assert_trees_all_equal(params["target_embedding"]["embedding"], table)
    chex.assert_trees_all_equal(params["output_embedding"]["embedding"], table + 1)


def test_a_model_may_be_stored_without_its_pooler(tmp_path: Path) -> None:
    saved = make_public("RobertaModel")
    save_pretrained(saved, tmp_path / "model")

    def drop(tensors: dict[str, np.ndarray], name: str) -> None:
        del tensors[name]

    change_tensors(tmp_path / "model", lambda tensors: drop(tensors, "pooler.dense.weight"))
    with pytest.raises(InputError, match=r"pooler.dense.weight is missing"):
        load_pretrained(tmp_path / "model")
    change_tensors(tmp_path / "model", lambda tensors: drop(tensors, "pooler.dense.bias"))
    loaded = load_pretrained(tmp_path / "model")
    assert loaded.config.pooler == "none"
    rest = {name: each for name, each in saved.params.items() if name != "pooler"}
    chex.assert_trees_all_equal(loaded.params, rest)
    save_pretrained(loaded, tmp_path / "again")
    found, expected = (load_tensors(tmp_path / name / WEIGHTS) for name in ("again", "model"))
    chex.assert_trees_all_equal(found, expected)
    assert load_pretrained(tmp_path / "again").config == loaded.config


@pytest.mark.parametrize("name", ["cls.predictions.extra.weight", "bert.pooler.dense.extra"])
def test_an_unknown_tensor_of_a_head_is_refused(tmp_path: Path, name: str) -> None:
    save_pretrained(make_public("BertForMaskedLM"), tmp_path / "model")
    change_tensors(tmp_path / "model", lambda tensors: tensors.update({name: np.ones(3)}))
    with pytest.raises(InputError, match=f"{name} is unexpected"):
        load_pretrained(tmp_path / "model")


def test_a_config_without_a_family_is_named_beside_a_pytorch_file(tmp_path: Path) -> None:
    save_pretrained(make_public("BertForMaskedLM"), tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    del config["model_type"], config["architectures"]
    (tmp_path / "model" / "config.json").write_text(json.dumps(config))
    (tmp_path / "model" / WEIGHTS).rename(tmp_path / "model" / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"model_type must be one of bert, .* got 'nothing'"):
        load_pretrained(tmp_path / "model")


def test_only_the_files_that_are_read_are_fetched() -> None:
    torch_files = {"pytorch_model.bin", "config.json"}
    for others in (set(), {"adapter_model.safetensors"}, {"consolidated.safetensors"}):
        assert "pytorch_model*.bin" in choose_patterns(torch_files | others)
    for name in (WEIGHTS, f"{WEIGHTS}.index.json"):
        patterns = choose_patterns({*torch_files, name, "consolidated.safetensors"})
        assert "model*.safetensors" in patterns
        assert not {"*.safetensors", "pytorch_model*.bin"} & {*patterns}
