"""Files of PyTorch before 1.6: read without PyTorch, and refused where they are damaged."""

import os
import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_public_models import legacy_state_dict, write_legacy_torch_file

from flax_transformer.errors import InputError
from flax_transformer.interop.legacy_torch_file import LegacyTorchFile

HEADER = (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True})


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pytorch_model.bin"


@pytest.fixture
def tensors() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes: dict[str, tuple[int, ...]] = {"a": (3, 5), "b.weight": (7,), "scalar": (), "none": (0,)}
    return {
        name: np.asarray(rng.normal(size=shape), np.float32, order="F")
        for name, shape in shapes.items()
    }


def assert_refused(path: Path, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        LegacyTorchFile(path)
    assert "\n" not in str(caught.value)


def write_pickles(path: Path, *pickled: bytes) -> None:
    path.write_bytes(b"".join(map(pickle.dumps, HEADER)) + b"".join(pickled))


def test_what_is_read_is_what_was_written(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    # Names of every length, so that the numbers lie at every offset.
    for shift in range(8):
        named = {f"{'x' * shift}{name}": tensor for name, tensor in tensors.items()}
        write_legacy_torch_file(path, named)
        file = LegacyTorchFile(path)
        assert file.tensors.keys() == named.keys()
        for name, tensor in named.items():
            np.testing.assert_array_equal(file.read(name), tensor)


def test_a_cut_or_lengthened_file_is_refused(path: Path, tensors: Mapping[str, Any]) -> None:
    write_legacy_torch_file(path, tensors)
    content = path.read_bytes()
    for size in (0, 1, 9, 40, 120, len(content) // 2, len(content) - 30, len(content) - 1):
        os.truncate(path, size)
        assert_refused(path, "is damaged|must hold|must list|must be")
        path.write_bytes(content)
    path.write_bytes(content + b"\0")
    assert_refused(path, "must end with its storages, got 1 more bytes")


@pytest.mark.parametrize("count", [-1, 0, 14, 16, 1 << 62])
def test_a_wrong_count_is_refused(path: Path, tensors: Mapping[str, Any], count: int) -> None:
    write_legacy_torch_file(path, {"a": tensors["a"]})
    content = bytearray(path.read_bytes())
    content[-68:-60] = struct.pack("<q", count)  # before 15 numbers of 4 bytes
    path.write_bytes(content)
    assert_refused(path, "must hold 15 numbers in storage 0, got")


@pytest.mark.parametrize("place", range(5))
def test_code_is_not_run(path: Path, tensors: Mapping[str, np.ndarray], place: int) -> None:
    """In whichever of the five pickles it is named."""
    trace = path.with_name("trace")

    class Touch:
        def __reduce__(self) -> tuple[Any, ...]:
            return os.system, (f"touch {trace}",)

    parts = [*map(pickle.dumps, HEADER), legacy_state_dict({"a": tensors["a"]})]
    parts = [*parts, pickle.dumps(["0"])]
    parts[place] = pickle.dumps([Touch()])
    path.write_bytes(b"".join(parts))
    assert_refused(path, "a pickle that names (posix|nt).system; nothing was run")
    assert not trace.exists()


def test_what_is_no_such_file_is_refused(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    state = legacy_state_dict({"a": tensors["a"]})
    for keys in (["1"], [], ["0", "0"], {"0": 1}):
        write_pickles(path, state, pickle.dumps(keys), bytes(68))
        assert_refused(path, "must list the storages of its tensors, each once")
    write_pickles(path, pickle.dumps([1]), pickle.dumps([]))
    assert_refused(path, "must hold named tensors, got list")
    path.write_bytes(pickle.dumps(3) * 5)
    assert_refused(path, "must be a file that torch.save wrote, got another one")
    path.write_bytes(b"".join(map(pickle.dumps, [*HEADER[:2], {"little_endian": False}])))
    assert_refused(path, "must hold numbers whose low bytes are first")
    write_pickles(path, state.replace(b"NtQ", b"\x88tQ"), pickle.dumps(["0"]), bytes(68))
    assert_refused(path, "must refer to storages alone, got")
