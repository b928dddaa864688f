"""What is read and written again is the same, and the transformers library takes it."""

from pathlib import Path

import chex
import pytest
from parity.peers import CASES, Case, Peer, torch

from flax_transformer.interop.pretrained import load_pretrained, save_pretrained
from flax_transformer.interop.safetensors_io import load_tensors

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]


@pytest.mark.parametrize("peer", CASES, indirect=True)
def test_every_tensor_is_written_as_it_was(peer: Peer, tmp_path: Path) -> None:
    save_pretrained(peer.pretrained, tmp_path / "again")
    first = load_tensors(peer.directory / "model.safetensors")
    second = load_tensors(tmp_path / "again" / "model.safetensors")
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert tensor.dtype == second[name].dtype
        assert tensor.shape == second[name].shape
        assert tensor.tobytes() == second[name].tobytes()
    loaded, report = type(peer.model).from_pretrained(
        tmp_path / "again", output_loading_info=True, local_files_only=True
    )
    assert not any(report.values())
    for name, tensor in peer.model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_pytorch_files(tmp_path: Path, dtype: str, is_zip: bool) -> None:
    """As torch.save writes them: tied copies and slices share storages, some are transposed."""
    model = Case("GPT2LMHeadModel").make().to(getattr(torch, dtype))
    model.save_pretrained(tmp_path / "safe")
    expected = load_pretrained(tmp_path / "safe")
    state = model.state_dict()
    assert state["lm_head.weight"].data_ptr() == state["transformer.wte.weight"].data_ptr()
    name = "transformer.h.0.mlp.c_fc.weight"
    state[name] = torch.nn.Parameter(state[name].T.contiguous().T)
    together = torch.cat([state["transformer.ln_f.weight"], state["transformer.ln_f.bias"]])
    state["transformer.ln_f.weight"], state["transformer.ln_f.bias"] = together.chunk(2)
    path = tmp_path / "safe" / "pytorch_model.bin"
    torch.save(state, path, _use_new_zipfile_serialization=is_zip)
    (tmp_path / "safe" / "model.safetensors").unlink()
    found = load_pretrained(tmp_path / "safe")
    assert found.config == expected.config
    assert found.config.param_dtype == dtype
    chex.assert_trees_all_equal(found.params, expected.params)


@pytest.mark.parametrize("class_name", ["BertModel", "RobertaModel"])
def test_a_model_without_a_pooler_is_written_as_one(class_name: str, tmp_path: Path) -> None:
    case = Case(class_name)
    model = type(case.make())(case.make().config, add_pooling_layer=False)
    model.save_pretrained(tmp_path / "first")
    save_pretrained(load_pretrained(tmp_path / "first"), tmp_path / "again")
    _, report = type(model).from_pretrained(
        tmp_path / "again",
        add_pooling_layer=False,
        output_loading_info=True,
        local_files_only=True,
    )
    assert not any(report.values())
