from pathlib import Path

import jax
import numpy as np
import pytest
from tiny_public_models import make_public

from flax_transformer.cli.main import main
from flax_transformer.interop.pretrained import is_public, load_pretrained, save_pretrained


@pytest.fixture
def public(tmp_path: Path) -> Path:
    save_pretrained(make_public("BertForMaskedLM"), tmp_path / "public")
    return tmp_path / "public"


def test_there_and_back(public: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["convert", str(public), str(tmp_path / "ours")]) == 0
    assert "this library" in capsys.readouterr().out
    assert not is_public(tmp_path / "ours")
    assert main(["convert", str(tmp_path / "ours"), str(tmp_path / "again")]) == 0
    assert "parameters and no tokenizer" in capsys.readouterr().out
    first = (public / "model.safetensors").read_bytes()
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == first


def test_another_dtype(public: Path, tmp_path: Path) -> None:
    target = tmp_path / "half"
    command = ["convert", str(public), str(target), "--dtype", "bfloat16"]
    assert main([*command, "--layout", "transformers"]) == 0
    assert is_public(target)
    whole, half = load_pretrained(public).params, load_pretrained(target).params
    for left, right in zip(jax.tree.leaves(whole), jax.tree.leaves(half), strict=True):
        np.testing.assert_array_equal(left.astype("bfloat16"), right)


def test_faults_are_one_line(
    public: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter").write_text("precious")
    assert main(["convert", str(public), str(tmp_path / "full")]) == 1
    assert "must be new, empty or a model directory" in capsys.readouterr().err
    assert main(["convert", str(tmp_path / "nothing"), str(tmp_path / "new")]) == 1
    captured = capsys.readouterr()
    assert "must be a directory, got nothing there" in captured.err
    assert captured.err.count("\n") == 1
    assert main(["translate", str(public)]) == 1
    assert "must be a model that translates, got architecture enc" in capsys.readouterr().err
