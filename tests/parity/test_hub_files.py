"""Files as the hub has them: old names, buffers, copies of what is tied, names without prefix."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import chex
import jax.numpy as jnp
import numpy as np
import pytest
from parity.peers import Case, make_inputs, torch

from flax_transformer.interop.pretrained import load_pretrained

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

Tensors: TypeAlias = dict[str, Any]


def _bert(tensors: Tensors) -> Tensors:
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("Norm.bias", "Norm.beta"): each
        for name, each in tensors.items()
    }
    size = tensors["cls.predictions.transform.dense.bias"].shape[0]
    return {
        **old,
        "cls.predictions.decoder.weight": tensors["bert.embeddings.word_embeddings.weight"],
        "bert.embeddings.position_ids": torch.arange(19)[None],
        "bert.pooler.dense.weight": torch.zeros(size, size),
        "bert.pooler.dense.bias": torch.zeros(size),
        "cls.seq_relationship.weight": torch.zeros(2, size),
        "cls.seq_relationship.bias": torch.zeros(2),
    }


def _distilbert(tensors: Tensors) -> Tensors:
    return {
        **tensors,
        "vocab_projector.weight": tensors["distilbert.embeddings.word_embeddings.weight"],
        "distilbert.embeddings.position_ids": torch.arange(19)[None],
    }


def _roberta(tensors: Tensors) -> Tensors:
    size = tensors["lm_head.dense.bias"].shape[0]
    return {
        **tensors,
        "lm_head.decoder.weight": tensors["roberta.embeddings.word_embeddings.weight"],
        "lm_head.decoder.bias": tensors["lm_head.bias"],
        "roberta.embeddings.position_ids": torch.arange(19)[None],
        "roberta.pooler.dense.weight": torch.zeros(size, size),
        "roberta.pooler.dense.bias": torch.zeros(size),
    }


def _gpt2(tensors: Tensors) -> Tensors:
    buffers: Tensors = {}
    for index in range(2):
        buffers[f"h.{index}.attn.bias"] = torch.tril(torch.ones(29, 29)).view(1, 1, 29, 29)
        buffers[f"h.{index}.attn.masked_bias"] = torch.tensor(-1e4)
    bare = {
        name.removeprefix("transformer."): each
        for name, each in tensors.items()
        if name != "lm_head.weight"
    }
    return bare | buffers


def _t5(tensors: Tensors) -> Tensors:
    unused = "decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight"
    names = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight", "lm_head.weight")
    return {**tensors, **dict.fromkeys(names, tensors["shared.weight"]), unused: torch.zeros(8, 3)}


def _with_tables(tensors: Tensors) -> Tensors:
    names = [f"model.{stack}.embed_tokens.weight" for stack in ("encoder", "decoder")]
    copies = dict.fromkeys([*names, "lm_head.weight"], tensors["model.shared.weight"])
    return {**tensors, **copies}


def _only_copies(tensors: Tensors) -> Tensors:
    copies = _with_tables(tensors)
    del copies["model.shared.weight"]
    return copies


def _llama(tensors: Tensors) -> Tensors:
    layers = range(2)
    name = "model.layers.{}.self_attn.rotary_emb.inv_freq"
    return tensors | {name.format(index): torch.ones(2) for index in layers}


FILES: Mapping[str, tuple[Case, Callable[[Tensors], Tensors]]] = {
    "bert": (Case("BertForMaskedLM"), _bert),
    "distilbert": (Case("DistilBertForMaskedLM"), _distilbert),
    "roberta": (Case("RobertaForMaskedLM"), _roberta),
    "gpt2": (Case("GPT2LMHeadModel"), _gpt2),
    "t5": (Case("T5ForConditionalGeneration"), _t5),
    "bart": (Case("BartForConditionalGeneration"), _with_tables),
    "marian": (Case("MarianMTModel"), _with_tables),
    "marian without its own table": (Case("MarianMTModel"), _only_copies),
    "llama": (Case("LlamaForCausalLM"), _llama),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("is_zip", [True, False])
def test_the_parameters_are_the_same(tmp_path: Path, name: str, is_zip: bool) -> None:
    case, change = FILES[name]
    model = case.make()
    model.save_pretrained(tmp_path)
    expected = load_pretrained(tmp_path)
    tensors = dict(model.state_dict())
    if name.startswith("marian"):
        table = model.model.encoder.embed_positions.weight.detach().clone()
        for stack in ("encoder", "decoder"):
            tensors[f"model.{stack}.embed_positions.weight"] = table
    path = tmp_path / "pytorch_model.bin"
    torch.save(change(tensors), path, _use_new_zipfile_serialization=is_zip)
    (tmp_path / "model.safetensors").unlink()
    found = load_pretrained(tmp_path)
    assert found.config == expected.config
    chex.assert_trees_all_equal(found.params, expected.params)


@pytest.mark.parametrize(
    ("case", "old_names"),
    [
        (Case("LlamaForCausalLM", {"rope_parameters": {"rope_theta": 500.0}}), True),
        (Case("MistralForCausalLM", {"sliding_window": None}), False),
        (Case("MistralForCausalLM", {"sliding_window": 29}), False),
    ],
)
def test_logits_are_the_same(tmp_path: Path, case: Case, old_names: bool) -> None:
    model = case.make()
    model.save_pretrained(tmp_path)
    if old_names:
        path = tmp_path / "config.json"
        values = json.loads(path.read_text())
        values["rope_scaling"] = values.pop("rope_parameters")
        path.write_text(json.dumps(values))
    pretrained = load_pretrained(tmp_path)
    inputs = make_inputs(model.config)
    with torch.no_grad():
        expected = model(
            input_ids=torch.tensor(inputs.source),
            attention_mask=torch.tensor(inputs.source_mask.astype(np.int64)),
        ).logits.numpy()
    found = pretrained.model.apply({"params": pretrained.params}, jnp.asarray(inputs.source))
    is_token = inputs.source_mask[..., None]
    assert np.abs((found - expected) * is_token).max() <= 1e-4 * np.abs(expected).max()
