"""Directories of public models that are damaged, or made to do harm, are refused in one line."""

import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_public_models import make_public, write_torch_archive, write_torch_zip

from flax_transformer.errors import InputError
from flax_transformer.interop.pretrained import load_pretrained, save_pretrained
from flax_transformer.interop.safetensors_io import load_tensors, save_tensors

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
TABLE = "transformer.wte.weight"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("sound") / "model"
    save_pretrained(make_public("GPT2LMHeadModel"), directory)
    return directory


@pytest.fixture
def directory(sound: Path, tmp_path: Path) -> Path:
    return shutil.copytree(sound, tmp_path / "model")


def assert_refused(directory: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_pretrained(directory)
    assert "\n" not in str(caught.value)


def change_tensors(directory: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    tensors = {name: np.array(each) for name, each in load_tensors(directory / WEIGHTS).items()}
    change(tensors)
    save_tensors(directory / WEIGHTS, tensors)


def change_config(directory: Path, **values: Any) -> None:
    config = json.loads((directory / CONFIG).read_text())
    (directory / CONFIG).write_text(json.dumps(config | values))


def spoil(tensors: dict[str, np.ndarray]) -> None:
    tensors[TABLE][3, 1] = np.nan


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop(TABLE), rf"must fit config.json beside it, but {TABLE} is missing"),
        (lambda t: t.update(extra=np.zeros(3)), "transformer.extra is unexpected"),
        (lambda t: t.update({TABLE: t[TABLE].T}), rf"{TABLE} is \(6, 23\) instead of \(23, 6\)"),
        (
            lambda t: t.update({TABLE: t[TABLE].astype(np.int32)}),
            rf"{TABLE} holds int32 instead of floating-point numbers",
        ),
        (
            lambda t: t.update({"wte.weight": t[TABLE]}),
            r"must hold each tensor once, got .*wte.weight and .*wte.weight",
        ),
        (spoil, rf"{TABLE} must hold finite values, got NaN or infinity"),
    ],
)
def test_tensors_that_do_not_fit(directory: Path, change: Any, message: str) -> None:
    change_tensors(directory, change)
    assert_refused(directory, message)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "mamba"}, r"model_type must be one of bert, .*, got 'mamba'"),
        ({"architectures": ["GPT2ForQuestionAnswering"]}, r"architectures must be one of GPT2LM"),
        ({"architectures": [["x"]]}, r"architectures must be one of GPT2LM"),
        ({"scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx must be Fals"),
        (
            {"quantization_config": {"bits": 4}},
            r"must not have the attribute 'quantization_config'",
        ),
        ({"n_embd": "6"}, "n_embd must be a whole number, got '6'"),
        ({"n_embd": None}, "n_embd must be a whole number, got nothing"),
        ({"n_head": 4}, "model_dim must be a multiple of num_heads"),
        ({"n_layer": 2}, r"transformer.h.1.*is missing"),
        ({"n_layer": 10**9}, r"must hold the 1000000000 layers of config.json, got 16 tensors"),
        ({"activation_function": "mish"}, r"activation_function must be one of relu, .*'mish'"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings must be true or false, got 'yes'"),
    ],
)
def test_attributes_that_cannot_be_served(
    directory: Path, values: dict[str, Any], message: str
) -> None:
    change_config(directory, **values)
    assert_refused(directory, message)


def test_an_attribute_of_null_is_one_that_is_not_given(directory: Path) -> None:
    expected = load_pretrained(directory).config
    change_config(directory, quantization_config=None)
    assert load_pretrained(directory).config == expected


@pytest.mark.parametrize("size", [0, 5, 8, 100, 2000])
def test_cut_weights(directory: Path, size: int) -> None:
    os.truncate(directory / WEIGHTS, size)
    assert_refused(directory, rf"{WEIGHTS} is damaged or no safetensors file")


def test_a_header_longer_than_its_file(directory: Path) -> None:
    content = (directory / WEIGHTS).read_bytes()
    (directory / WEIGHTS).write_bytes(struct.pack("<Q", 1 << 40) + content[8:])
    assert_refused(directory, rf"{WEIGHTS} is damaged or no safetensors file")


def test_missing_and_unreadable_files(directory: Path) -> None:
    (directory / WEIGHTS).unlink()
    assert_refused(directory, r"must hold model.safetensors or pytorch_model.bin, or an index")
    (directory / "generation_config.json").write_text('{"eos_token_id": "2"}')
    assert_refused(directory, "must hold model.safetensors or")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"eos_token_id": "2"}', r"eos_token_id must be a token, or tokens, got 2"),
        ('{"bad_words_ids": [3]}', r"bad_words_ids must be lists of tokens"),
        ("[]", r"generation_config.json must hold a JSON object, got a list"),
        ("{", r"generation_config.json must hold JSON"),
        ("[" * 100_000, r"generation_config.json must hold JSON"),
    ],
)
def test_a_generation_config_that_is_none(directory: Path, content: str, message: str) -> None:
    (directory / "generation_config.json").write_text(content)
    assert_refused(directory, message)


@pytest.mark.parametrize(
    "shard", ["/etc/passwd", "../model.safetensors", "sub/a.safetensors", "..", "", "link"]
)
def test_an_index_that_points_elsewhere(directory: Path, shard: str) -> None:
    outside = directory.parent / "outside.safetensors"
    shutil.move(directory / WEIGHTS, outside)
    (directory / "link").symlink_to(outside)
    names = load_tensors(outside)
    (directory / INDEX).write_text(json.dumps({"weight_map": dict.fromkeys(names, shard)}))
    assert_refused(directory, rf"{INDEX} must name files beside it, got {shard!r}")


def test_an_index_that_does_not_fit_its_files(directory: Path) -> None:
    tensors = load_tensors(directory / WEIGHTS)
    (directory / WEIGHTS).rename(directory / "a.safetensors")
    placed = dict.fromkeys(tensors, "a.safetensors")

    def write(values: Any) -> None:
        (directory / INDEX).write_text(json.dumps(values))

    write({"weight_map": placed | {"more": "a.safetensors"}})
    assert_refused(directory, "more is not in a.safetensors")
    del placed[TABLE]
    write({"weight_map": placed})
    assert_refused(directory, rf"{TABLE} of a.safetensors is not in the index")
    write({"weight_map": placed | {TABLE: "b.safetensors"}})
    assert_refused(directory, r"b.safetensors must be a file, got nothing there")
    save_tensors(directory / "b.safetensors", {name: tensors[name] for name in list(tensors)[:1]})
    write({"weight_map": {**placed, TABLE: "a.safetensors", "z": "b.safetensors"}})
    assert_refused(directory, "must hold each tensor once|must fit the files beside it")
    for values in ({}, {"weight_map": []}, {"weight_map": {TABLE: 3}}):
        write(values)
        assert_refused(directory, "must map tensors to files by weight_map")


class TestPickles:
    """PyTorch's files; where a pickle is run, it leaves a file behind."""

    @pytest.fixture(autouse=True)
    def _no_safetensors(self, directory: Path) -> None:
        self.tensors = load_tensors(directory / WEIGHTS)
        (directory / WEIGHTS).unlink()
        self.path = directory / "pytorch_model.bin"
        self.trace = directory / "trace"

    @pytest.mark.parametrize(
        ("module", "name"),
        [
            ("os", "system"),
            ("builtins", "eval"),
            ("builtins", "getattr"),
            ("torch.serialization", "load"),
            ("collections", "OrderedDict.__init__.__globals__"),
            ("flax_transformer.interop.torch_pickle", "pickle"),
        ],
    )
    def test_code_is_not_run(self, directory: Path, module: str, name: str) -> None:
        argument = f"touch {self.trace}".encode()
        names = f"\x8c{chr(len(module))}{module}\x8c{chr(len(name))}{name}\x93".encode("latin-1")
        call = b"\x80\x04" + names + b"\x8c" + bytes([len(argument)]) + argument + b"\x85R."
        write_torch_zip(self.path, call, {})
        refusal = rf"a pickle that names {module}.{name.split('.')[0]}.*; nothing was run"
        assert_refused(directory, refusal)
        assert not self.trace.exists()

    def test_a_pickle_of_python(self, directory: Path) -> None:
        trace = self.trace

        class Touch:
            def __reduce__(self) -> tuple[Any, ...]:
                return os.system, (f"touch {trace}",)

        write_torch_zip(self.path, pickle.dumps({"a": Touch()}), {})
        assert_refused(directory, "a pickle that names (posix|nt).system; nothing was run")
        self.path.write_bytes(pickle.dumps({"a": Touch()}))
        assert_refused(directory, "a pickle that names (posix|nt).system; nothing was run")
        assert not self.trace.exists()

    def test_what_is_no_tensor(self, directory: Path) -> None:
        for content, message in (
            (pickle.dumps([1]), "must hold named tensors, got list"),
            (pickle.dumps({"a": 3}), "must hold tensors alone, got 'a'"),
            (b"\x80\x02(", "is damaged"),
            (b"\x80\x02" + b"(" * 100_000 + b"l" * 100_000 + b".", "is damaged|named tensors"),
            (b"", "is damaged"),
            (b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f", "is damaged"),
        ):
            write_torch_zip(self.path, content, {})
            assert_refused(directory, message)

    def test_storages_that_do_not_hold_their_tensors(self, directory: Path) -> None:
        write_torch_archive(self.path, self.tensors)
        load_pretrained(directory)
        content = self.path.read_bytes()
        for size in (0, 100, len(content) // 2, len(content) - 30):
            self.path.write_bytes(content[:size])
            assert_refused(directory, "is damaged")
        short = {name: each.reshape(-1)[:1] for name, each in self.tensors.items()}

        write_torch_archive(
            self.path,
            {name: _Claim(short[name], each.shape) for name, each in self.tensors.items()},  # type: ignore[dict-item]
        )
        assert_refused(directory, "which leaves its storage|must hold .* numbers for")


class _Claim:
    """An array that says it is larger than its bytes."""

    def __init__(self, array: np.ndarray, shape: tuple[int, ...]) -> None:
        self._array = array
        self.shape = shape
        self.size = array.size
        self.itemsize = array.itemsize
        self.strides = np.zeros(shape, array.dtype).strides

    def tobytes(self, order: str) -> bytes:
        return self._array.tobytes()
