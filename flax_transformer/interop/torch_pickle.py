"""The pickles of PyTorch's files of tensors, read without PyTorch and without running any code.

A pickle can name any function of any module and have it called; here only what rebuilds tensors is
known, and anything else that a pickle names is refused before it is looked up. What comes out
describes tensors; their numbers lie outside the pickle.
"""

import collections
import math
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import ml_dtypes
import numpy as np

from flax_transformer.errors import InputError, one_line

MAX_PICKLE_BYTES = 1 << 27
"""Of names and shapes; far more than any model has."""

_STORAGE_DTYPES: Mapping[str, Any] = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


class ByteStream(Protocol):
    """What a pickle is read from."""

    def read(self, size: int, /) -> bytes:
        """Read up to ``size`` bytes."""

    def readline(self) -> bytes:
        """Read up to the end of a line."""


class Storage(NamedTuple):
    """Numbers that lie outside the pickle: ``size`` of ``dtype``, found by their key."""

    key: str
    dtype: np.dtype
    size: int


class StoredTensor(NamedTuple):
    """A tensor that has been described, but not read; offset and strides count numbers."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


def load_pickle(stream: ByteStream, path: Path) -> Any:
    """Read the next pickle of a stream.

    Raises:
        InputError: it names anything but what rebuilds tensors, or is damaged.
    """
    try:
        return _TensorUnpickler(stream, path).load()
    except InputError:
        raise
    except Exception as error:  # bytes that are no pickle can raise anything
        raise InputError(f"{path} is damaged: {one_line(error)}.") from error


def check_state_dict(loaded: Any, path: Path) -> dict[str, StoredTensor]:
    """Return what a pickle held, if it is a dictionary of tensors.

    Raises:
        InputError: it is not.
    """
    if not isinstance(loaded, dict):
        raise InputError(f"{path} must hold named tensors, got {type(loaded).__name__}.")
    for key, tensor in loaded.items():
        if not (isinstance(key, str) and isinstance(tensor, StoredTensor)):
            raise InputError(f"{path} must hold tensors alone, got {key!r}.")
    return dict(loaded)


def check_bounds(tensor: StoredTensor, name: str, path: Path) -> None:
    """Raise InputError if a tensor leaves its storage."""
    storage, offset, shape, strides = tensor
    last = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
    if math.prod(shape) and not (min((offset, *strides)) >= 0 and last < storage.size):
        raise InputError(f"{path} must hold all of {name}, which leaves its storage.")


def view_tensor(tensor: StoredTensor, flat: np.ndarray) -> np.ndarray:
    """Return a tensor, whose bounds have been checked, out of the numbers of its storage."""
    storage, offset, shape, strides = tensor
    if not math.prod(shape):
        return np.zeros(shape, storage.dtype)
    item = storage.dtype.itemsize
    return np.lib.stride_tricks.as_strided(flat[offset:], shape, [step * item for step in strides])


class _TensorUnpickler(pickle.Unpickler):
    """An unpickler that knows tensors and dictionaries, and refuses to look up anything else."""

    def __init__(self, stream: ByteStream, path: Path) -> None:
        super().__init__(stream)
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        """Return what a pickle names, if it is one of the few names of a state dict."""
        if module == "torch" and name in _STORAGE_DTYPES:
            return np.dtype(_STORAGE_DTYPES[name])
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        raise InputError(
            f"{self._path} must hold tensors alone, got a pickle that names {module}.{name}; "
            "nothing was run."
        )

    def persistent_load(self, pid: Any) -> Storage:
        """Return the storage that a tensor refers to."""
        # In the format before the zip files, a sixth entry is there for a part of another storage.
        kind, dtype, key, _, size, *view = pid
        is_plain = kind == "storage" and isinstance(dtype, np.dtype) and str(key).isalnum()
        if not is_plain or any(part is not None for part in view):
            raise InputError(f"{self._path} must refer to storages alone, got {str(pid)[:80]}.")
        return Storage(str(key), dtype, int(size))


def _rebuild_tensor(
    storage: Storage,
    offset: int,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    *_: object,  # whether it is trained, its hooks, its metadata
) -> StoredTensor:
    return StoredTensor(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _rebuild_parameter(tensor: StoredTensor, *_: object) -> StoredTensor:
    return tensor


_KNOWN: Mapping[tuple[str, str], Callable[..., Any]] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
}
