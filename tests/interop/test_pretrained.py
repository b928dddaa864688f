import json
import os
import pickle
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from flax_transformer.data.sentence_pair import SentencePair
from flax_transformer.data.tokenizer import TokenizerConfig, train_tokenizer
from flax_transformer.errors import InputError
from flax_transformer.interop.pretrained import Pretrained, load_pretrained, save_model
from flax_transformer.interop.safetensors_io import load_tensors, save_tensors
from flax_transformer.models.encoder_decoder import EncoderDecoder
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.run_layout import CONFIG_FILE, TOKENIZER_DIRECTORY, WEIGHTS_FILE

TOKENS = jnp.array([[3, 5, 7, 2]])


def make_pretrained(shared: bool, vocab_size: int = 283, **choices: Any) -> Pretrained:
    pairs = [SentencePair("the red book", "o livro vermelho"), SentencePair("a cat", "um gato")] * 5
    tokenizer_config = TokenizerConfig(vocab_size=vocab_size, algorithm="bpe", shared=shared)
    tokenizer = train_tokenizer(tokenizer_config, pairs, seed=0)
    config = TransformerConfig(
        source_vocab_size=tokenizer.source.vocab_size,
        target_vocab_size=tokenizer.target.vocab_size,
        share_source_target_embedding=shared,
        model_dim=6,
        num_heads=3,
        num_encoder_layers=2,
        num_decoder_layers=1,
        feed_forward_dim=11,
        max_positions=13,
        **choices,
    )
    model = EncoderDecoder(config)
    params = model.init(jax.random.key(0), TOKENS, TOKENS)["params"]
    return Pretrained(model, params, config, tokenizer)


@pytest.fixture(scope="module")
def pretrained() -> Pretrained:
    return make_pretrained(shared=True)


@pytest.fixture
def directory(tmp_path: Path, pretrained: Pretrained) -> Path:
    save_model(tmp_path / "model", pretrained)
    return tmp_path / "model"


def assert_same(actual: Any, expected: Any) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for left, right in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert left.dtype == right.dtype
        assert np.asarray(left).tobytes() == np.asarray(right).tobytes()


def change_tensors(directory: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    tensors = {
        name: np.array(tensor) for name, tensor in load_tensors(directory / WEIGHTS_FILE).items()
    }
    change(tensors)
    save_tensors(directory / WEIGHTS_FILE, tensors)


def change_config(directory: Path, **values: Any) -> None:
    config = json.loads((directory / CONFIG_FILE).read_text())
    (directory / CONFIG_FILE).write_text(json.dumps(config | values))


@pytest.mark.parametrize(
    ("shared", "choices"),
    [
        (True, {}),
        (False, {"share_target_output_embedding": False, "position_encoding": "learned"}),
        (True, {"scan_layers": True, "head_dim": 5, "gated_feed_forward": True}),
    ],
)
def test_loading_inverts_saving(tmp_path: Path, shared: bool, choices: dict[str, Any]) -> None:
    saved = make_pretrained(shared, **choices)
    save_model(tmp_path / "model", saved)
    loaded = load_pretrained(tmp_path / "model")
    assert loaded.config == saved.config
    assert loaded.tokenizer == saved.tokenizer
    assert loaded.tokenizer.shared == shared
    assert_same(loaded.params, saved.params)
    np.testing.assert_array_equal(
        loaded.model.apply({"params": loaded.params}, TOKENS, TOKENS, deterministic=True),
        saved.model.apply({"params": saved.params}, TOKENS, TOKENS, deterministic=True),
    )
    assert {path.name for path in tmp_path.iterdir()} == {"model"}


def test_a_run_has_its_model_below(directory: Path, pretrained: Pretrained) -> None:
    assert_same(load_pretrained(str(directory.parent)).params, pretrained.params)


def test_saving_replaces_the_model_there(directory: Path, pretrained: Pretrained) -> None:
    doubled = jax.tree.map(lambda leaf: 2 * leaf, pretrained.params)
    save_model(directory, pretrained._replace(params=doubled))
    assert_same(load_pretrained(directory).params, doubled)
    assert [path.name for path in directory.parent.iterdir()] == [directory.name]


def test_a_failed_save_leaves_the_model_there(directory: Path, pretrained: Pretrained) -> None:
    disk = directory.parent / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        save_model(disk / "model", pretrained)
        (disk / "ballast").write_bytes(bytes(shutil.disk_usage(disk).free - (1 << 13)))
        doubled = jax.tree.map(lambda leaf: 2 * leaf, pretrained.params)
        with pytest.raises(InputError, match=r"cannot be written: .*[Nn]o space"):
            save_model(disk / "model", pretrained._replace(params=doubled))
        assert_same(load_pretrained(disk).params, pretrained.params)
        assert {path.name for path in disk.iterdir()} == {"model", "ballast"}
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_tensors_keep_values_whatever_their_layout(tmp_path: Path) -> None:
    base = np.arange(105, dtype=np.float32).reshape(3, 5, 7)
    tensors = {
        "transposed": base.T,
        "fortran": np.asfortranarray(base),
        "sliced": base[::2, 1:, ::3],
        "bfloat16": base.astype(ml_dtypes.bfloat16),
        "scalar": np.float32(3.0),
        "jax": jnp.arange(11),
        "empty": np.zeros((0, 3), np.float32),
    }
    save_tensors(tmp_path / "file", tensors)
    loaded = load_tensors(tmp_path / "file")
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == np.asarray(tensor).dtype
        np.testing.assert_array_equal(loaded[name], np.asarray(tensor))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("target_embedding/embedding"), "target_embedding/embedding is missing"),
        (lambda t: t.update(extra=np.zeros(3)), "extra is unexpected"),
        (
            lambda t: t.update({"target_embedding/embedding": t["target_embedding/embedding"].T}),
            r"is float32\(6, 283\) instead of float32\(283, 6\)",
        ),
        (
            lambda t: t.update(
                {"target_embedding/embedding": t["target_embedding/embedding"].astype(np.float16)}
            ),
            r"is float16\(283, 6\) instead of float32\(283, 6\)",
        ),
    ],
)
def test_parameters_that_do_not_fit(directory: Path, change: Any, message: str) -> None:
    change_tensors(directory, change)
    with pytest.raises(InputError, match=rf"{WEIGHTS_FILE} must fit {CONFIG_FILE}.*{message}"):
        load_pretrained(directory)


def test_a_tensor_that_is_not_finite_is_refused(directory: Path) -> None:
    def spoil(tensors: dict[str, np.ndarray]) -> None:
        tensors["target_embedding/embedding"][3, 1] = np.nan

    change_tensors(directory, spoil)
    with pytest.raises(InputError, match=r"target_embedding/embedding must hold finite values"):
        load_pretrained(directory)


def test_only_a_model_is_replaced(directory: Path) -> None:
    pretrained = load_pretrained(directory)
    (directory / "letter").write_text("precious")
    with pytest.raises(InputError, match=r"must be new, empty or a model directory.*letter"):
        save_model(directory, pretrained)
    assert (directory / "letter").read_text() == "precious"


def test_a_model_that_cannot_be_put_in_place_leaves_the_old_one(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrained = load_pretrained(directory)
    rename = Path.rename

    def fail_for_the_new_one(self: Path, target: Path) -> Path:
        if self.name.endswith(".new"):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fail_for_the_new_one)
    with pytest.raises(InputError, match="No space left on device"):
        save_model(directory, pretrained)
    monkeypatch.undo()
    assert load_pretrained(directory).config == pretrained.config


@pytest.mark.parametrize("size", [0, 5, 8, 100, 2000])
def test_cut_weights_are_named(directory: Path, size: int) -> None:
    os.truncate(directory / WEIGHTS_FILE, size)
    with pytest.raises(InputError, match=rf"{WEIGHTS_FILE} is damaged or no safetensors") as caught:
        load_pretrained(directory)
    assert "\n" not in str(caught.value)


def test_a_pickle_is_not_read(directory: Path) -> None:
    (directory / WEIGHTS_FILE).write_bytes(pickle.dumps({"a": np.zeros(3)}))
    with pytest.raises(InputError, match="is damaged or no safetensors file"):
        load_pretrained(directory)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_dims": 6}, r"config.json must not have the key 'model_dims'"),
        ({"model_dim": "6"}, r"config.json.model_dim must be int, got '6'"),
        ({"activation": "tanh"}, r"config.json.activation must be .*, got 'tanh'"),
        ({"num_heads": 4}, "model_dim must be a multiple of num_heads"),
        ({"target_vocab_size": 290, "source_vocab_size": 290}, r"\(290, 290\) in the config and"),
    ],
)
def test_config_that_cannot_work(directory: Path, values: dict[str, Any], message: str) -> None:
    change_config(directory, **values)
    with pytest.raises(InputError, match=message):
        load_pretrained(directory)


def test_a_missing_or_unreadable_file_is_named(directory: Path, tmp_path: Path) -> None:
    (directory / CONFIG_FILE).write_bytes(b"\xff\xfe{")
    with pytest.raises(InputError, match=rf"{CONFIG_FILE} must hold JSON"):
        load_pretrained(directory)
    (directory / CONFIG_FILE).write_text("[]")
    with pytest.raises(InputError, match=rf"{CONFIG_FILE} must hold a JSON object, got a list"):
        load_pretrained(directory)
    (directory / CONFIG_FILE).unlink()
    with pytest.raises(InputError, match=rf"{CONFIG_FILE} must be a readable file"):
        load_pretrained(directory)
    with pytest.raises(InputError, match="must be a directory, got nothing there"):
        load_pretrained(tmp_path / "nowhere")
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    with pytest.raises(
        InputError, match=r"has no model yet\. Wait for .* `flax-transformer average"
    ):
        load_pretrained(tmp_path / "run")
    with pytest.raises(InputError, match="must be a run's work directory or a model directory"):
        load_pretrained(tmp_path / "run" / "checkpoints")


def test_a_missing_tokenizer_is_named(directory: Path) -> None:
    shutil.rmtree(directory / TOKENIZER_DIRECTORY)
    with pytest.raises(InputError, match=TOKENIZER_DIRECTORY):
        load_pretrained(directory)


def test_another_tokenizer_is_refused(tmp_path: Path, pretrained: Pretrained) -> None:
    other = make_pretrained(shared=True, vocab_size=281).tokenizer
    with pytest.raises(InputError, match=r"\(283, 283\) in the config and \(281, 281\)"):
        save_model(tmp_path / "model", pretrained._replace(tokenizer=other))
    assert not list(tmp_path.iterdir())
