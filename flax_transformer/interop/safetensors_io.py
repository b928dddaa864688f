"""Named arrays in safetensors files, which cannot hold code, one array at a time."""

import contextlib
import json
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from flax_transformer.errors import InputError, one_line

_DTYPES: Mapping[str, Any] = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}
_DTYPE_NAMES = {np.dtype(dtype): name for name, dtype in _DTYPES.items()}

_ALIGNMENT = 8
"""Bytes of which the header's length is a multiple, so that numbers are aligned behind it."""


class TensorSignature(NamedTuple):
    """What a tensor is, before it is read."""

    shape: tuple[int, ...]
    dtype: np.dtype


class SafetensorsFile:
    """An open file, mapped into memory.

    Attributes:
        path: of the file.
        signatures: shape and dtype of every tensor, by its name.

    Raises:
        InputError: the file is missing, cut, or not safetensors.
    """

    def __init__(self, path: Path, stack: contextlib.ExitStack) -> None:
        self.path = path
        if not path.is_file():
            raise InputError(f"{path} must be a file, got nothing there.")
        self.signatures: dict[str, TensorSignature] = {}
        with self._faults():
            self._file = stack.enter_context(safe_open(path, framework="np"))
            for name in self._file.keys():  # noqa: SIM118 - it is no mapping
                view = self._file.get_slice(name)
                if view.get_dtype() not in _DTYPES:
                    raise InputError(
                        f"{path} must hold tensors of {', '.join(_DTYPES)}, got "
                        f"{view.get_dtype()} for {name}."
                    )
                dtype = np.dtype(_DTYPES[view.get_dtype()])
                self.signatures[name] = TensorSignature(tuple(view.get_shape()), dtype)

    def read(self, name: str) -> np.ndarray:
        """Read the tensor ``name``, one of ``signatures``.

        Raises:
            InputError: the file is damaged.
        """
        with self._faults():
            return self._file.get_tensor(name)

    @contextlib.contextmanager
    def _faults(self) -> Iterator[None]:
        try:
            yield
        except InputError:
            raise
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise InputError(
                f"{self.path} is damaged or no safetensors file: {one_line(error)}."
            ) from error


def save_tensors(
    path: Path, tensors: Mapping[str, Any], *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays (of JAX or NumPy) and read them back to compare.

    Only one of them at a time is held a second time.

    Args:
        path: file to write.
        tensors: arrays by their names.
        metadata: texts that go with them.

    Raises:
        InputError: the file cannot be written, or does not read back as it was written.
    """
    # The order in which the format's own library writes them, so that all are aligned.
    names = sorted(tensors, key=lambda name: (-np.dtype(tensors[name].dtype).itemsize, name))
    try:
        with path.open("wb") as file:
            file.write(_make_header({name: tensors[name] for name in names}, metadata))
            for name in names:
                file.write(_bytes_of(tensors[name]))
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error}.") from error
    with contextlib.ExitStack() as stack:
        written = SafetensorsFile(path, stack)
        for name, tensor in tensors.items():
            signature = TensorSignature(tuple(tensor.shape), np.dtype(tensor.dtype))
            is_same = written.signatures.get(name) == signature
            if not (is_same and _bytes_of(written.read(name)) == _bytes_of(tensor)):
                raise InputError(f"{path} does not read back as it was written: {name} differs.")


def load_tensors(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of a file.

    Raises:
        InputError: the file is missing, cut, or not safetensors.
    """
    with contextlib.ExitStack() as stack:
        file = SafetensorsFile(path, stack)
        return {name: file.read(name) for name in file.signatures}


def _make_header(tensors: Mapping[str, Any], metadata: Mapping[str, str] | None) -> bytes:
    """Return what the file begins with: its length, and what lies where, in JSON."""
    header: dict[str, Any] = {} if metadata is None else {"__metadata__": dict(metadata)}
    start = 0
    for name, tensor in tensors.items():
        dtype = np.dtype(tensor.dtype)
        end = start + tensor.size * dtype.itemsize
        header[name] = {
            "dtype": _DTYPE_NAMES[dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
        start = end
    content = json.dumps(header, separators=(",", ":")).encode()
    content += b" " * (-len(content) % _ALIGNMENT)
    return struct.pack("<Q", len(content)) + content


def _bytes_of(tensor: Any) -> memoryview:
    """Return the bytes of an array, row by row; a copy only where they do not lie so."""
    return np.asarray(tensor, order="C").reshape(-1).view(np.uint8).data
