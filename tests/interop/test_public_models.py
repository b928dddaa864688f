import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_public_models import PUBLIC_SHAPES, make_public, write_torch_archive

from flax_transformer.errors import InputError
from flax_transformer.interop.family_registry import find_member
from flax_transformer.interop.pretrained import (
    Pretrained,
    load_pretrained,
    save_model,
    save_pretrained,
)
from flax_transformer.interop.safetensors_io import load_tensors, save_tensors
from flax_transformer.models.stack import stack_layers
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.parallel.mesh import MeshConfig, make_mesh
from flax_transformer.parallel.parameter_sharding import parameter_shardings
from flax_transformer.parallel.sharding_rules import ShardingRules


def assert_same_parameters(found: Any, expected: Any) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for left, right in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert left.dtype == right.dtype
        np.testing.assert_array_equal(np.asarray(left), np.asarray(right))


def save(pretrained: Pretrained, directory: Path) -> Path:
    save_pretrained(pretrained, directory)
    return directory


@pytest.mark.parametrize("class_name", PUBLIC_SHAPES)
def test_loading_inverts_saving(tmp_path: Path, class_name: str) -> None:
    saved = make_public(class_name)
    directory = save(saved, tmp_path / "model")
    assert json.loads((directory / "config.json").read_text())["architectures"] == [class_name]
    loaded = load_pretrained(directory)
    assert find_member(loaded.config).class_name == class_name
    assert_same_parameters(loaded.params, saved.params)
    assert loaded.labels == saved.labels
    assert loaded.generation == saved.generation
    assert loaded.tokenizer is None
    first = load_tensors(directory / "model.safetensors")
    second = load_tensors(save(loaded, tmp_path / "again") / "model.safetensors")
    assert first.keys() == second.keys()
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)


@pytest.mark.parametrize("class_name", ["BartForConditionalGeneration", "BertForMaskedLM"])
def test_a_public_model_becomes_one_of_ours(tmp_path: Path, class_name: str) -> None:
    public = load_pretrained(save(make_public(class_name), tmp_path / "public"))
    save_model(tmp_path / "ours", public)
    ours = load_pretrained(tmp_path / "ours")
    assert ours.config == public.config
    assert ours.generation == public.generation
    assert_same_parameters(ours.params, public.params)


def test_stacked_layers_are_written_one_by_one(tmp_path: Path) -> None:
    plain = make_public("GPT2LMHeadModel", num_decoder_layers=2)
    stacked = make_public("GPT2LMHeadModel", num_decoder_layers=2, scan_layers=True)
    save_pretrained(stacked._replace(params=stack_layers(plain.params)), tmp_path / "model")
    assert_same_parameters(load_pretrained(tmp_path / "model").params, plain.params)


def test_a_model_of_bfloat16(tmp_path: Path) -> None:
    saved = make_public("MarianMTModel", param_dtype="bfloat16")
    directory = save(saved, tmp_path / "model")
    loaded = load_pretrained(directory)
    assert loaded.config.param_dtype == loaded.config.compute_dtype == "bfloat16"
    assert_same_parameters(loaded.params, saved.params)
    wide = load_pretrained(directory, dtype="float32")
    assert wide.config.compute_dtype == "float32"
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(wide.params))


def test_float16_is_widened(tmp_path: Path) -> None:
    saved = make_public("MarianMTModel")
    directory = save(saved, tmp_path / "model")
    tensors = load_tensors(directory / "model.safetensors")
    halves = {name: tensor.astype(np.float16) for name, tensor in tensors.items()}
    save_tensors(directory / "model.safetensors", halves)
    leaves = zip(
        jax.tree.leaves(load_pretrained(directory).params),
        jax.tree.leaves(saved.params),
        strict=True,
    )
    for found, expected in leaves:
        assert found.dtype == jnp.float32
        np.testing.assert_array_equal(found, np.float32(np.float16(expected)))


def test_parameters_lie_on_the_mesh_as_its_rules_say(tmp_path: Path) -> None:
    saved = make_public(
        "LlamaForCausalLM", model_dim=8, source_vocab_size=24, target_vocab_size=24,
        feed_forward_dim=12, num_heads=4, num_key_value_heads=2,
    )  # fmt: skip
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=2, data=2))
    params = load_pretrained(save(saved, tmp_path / "model"), mesh=mesh).params
    expected = parameter_shardings(saved.params, mesh, ShardingRules())
    assert jax.tree.map(lambda leaf: leaf.sharding, params) == expected
    assert_same_parameters(params, saved.params)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize("is_public", [True, False])
def test_no_second_copy_is_held(tmp_path: Path, is_public: bool) -> None:
    """The memory of a process that loads a model and saves it, beside mapped files."""
    saved = make_public(
        "LlamaForCausalLM", model_dim=384, num_heads=6, num_key_value_heads=6, head_dim=64,
        feed_forward_dim=1536, num_decoder_layers=12,
    )  # fmt: skip
    if is_public:
        save_pretrained(saved, tmp_path / "model")
    else:
        save_model(tmp_path / "model", saved)
    script = Path(__file__).parents[1] / "model_memory.py"
    command = [sys.executable, str(script), str(tmp_path / "model"), str(tmp_path)]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    figures = json.loads(run.stdout)
    total = figures["parameters"]
    # Beside the parameters there is what the tracing of the model takes, some 30 MiB of any size.
    assert total > 100
    assert figures["loading"] < 1.7 * total
    assert figures["saving ours"] < 0.3 * total
    assert figures["saving a public one"] < 0.3 * total


def test_shards_and_pytorch_files_hold_the_same_model(tmp_path: Path) -> None:
    saved = make_public("GPT2LMHeadModel")
    directory = save(saved, tmp_path / "model")
    tensors = load_tensors(directory / "model.safetensors")
    (directory / "model.safetensors").unlink()
    names = sorted(tensors)
    shards = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for shard, inside in shards.items():
        save_tensors(directory / shard, {name: tensors[name] for name in inside})
    placed = {name: shard for shard, inside in shards.items() for name in inside}
    index = directory / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    assert_same_parameters(load_pretrained(directory).params, saved.params)
    index.unlink()
    # Transposed, so that strides are not those of a plain array.
    tables = {name: np.asfortranarray(tensor) for name, tensor in tensors.items()}
    write_torch_archive(
        directory / "pytorch_model.bin",
        {name: table.T.copy().T for name, table in tables.items()},
    )
    assert_same_parameters(load_pretrained(directory).params, saved.params)


def test_names_of_earlier_files_are_understood(tmp_path: Path) -> None:
    """Without the prefix, with old names of scales, with copies of what is tied, with buffers."""
    saved = make_public("BertForMaskedLM")
    directory = save(saved, tmp_path / "model")
    tensors = load_tensors(directory / "model.safetensors")
    table = tensors["bert.embeddings.word_embeddings.weight"]
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
            "LayerNorm.bias", "LayerNorm.beta"
        ): tensor
        for name, tensor in tensors.items()
    }
    old["cls.predictions.decoder.weight"] = table
    old["bert.embeddings.position_ids"] = np.arange(13)[None]
    old["bert.pooler.dense.weight"] = np.zeros((6, 6), np.float32)
    old["cls.seq_relationship.weight"] = np.zeros((2, 6), np.float32)
    save_tensors(directory / "model.safetensors", old)
    assert_same_parameters(load_pretrained(directory).params, saved.params)
    old = {name.removeprefix("bert."): tensor for name, tensor in old.items()}
    save_tensors(directory / "model.safetensors", old)
    assert_same_parameters(load_pretrained(directory).params, saved.params)


def test_a_tied_copy_must_be_the_same(tmp_path: Path) -> None:
    directory = save(make_public("BartForConditionalGeneration"), tmp_path / "model")
    tensors = load_tensors(directory / "model.safetensors")
    tensors["lm_head.weight"] = tensors["model.shared.weight"] + 1
    save_tensors(directory / "model.safetensors", tensors)
    with pytest.raises(InputError, match=r"lm_head.weight must be the same as model.shared.weig"):
        load_pretrained(directory)


def test_an_output_table_that_differs_is_one_of_its_own(tmp_path: Path) -> None:
    directory = save(make_public("T5ForConditionalGeneration"), tmp_path / "model")
    tensors = load_tensors(directory / "model.safetensors")
    tensors["lm_head.weight"] = tensors["shared.weight"] + 1
    save_tensors(directory / "model.safetensors", tensors)
    loaded = load_pretrained(directory)
    assert not loaded.config.share_target_output_embedding
    assert loaded.config.scale_output
    table = loaded.params["output_embedding"]["embedding"]
    np.testing.assert_array_equal(table, tensors["lm_head.weight"])


def test_a_model_of_no_family_is_not_written(tmp_path: Path) -> None:
    shape = make_public("GPT2LMHeadModel", norm="rms")
    with pytest.raises(InputError, match=r"must be of a family .* gpt2 \(norm = 'rms' instead of"):
        save_pretrained(shape, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match="must be of a family"):
        find_member(TransformerConfig())
