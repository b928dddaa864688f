"""PyTorch's zip files of tensors, read without PyTorch and without running any code.

Such a file holds a pickle, which describes tensors, and the bytes of their storages. A pickle can
name any function of any module and have it called; here only what rebuilds tensors is known, and
anything else that a pickle names is refused before it is looked up.
"""

import collections
import io
import math
import pickle
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

import ml_dtypes
import numpy as np

from flax_transformer.errors import InputError, one_line

_MAX_PICKLE_BYTES = 1 << 27
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


class _Storage(NamedTuple):
    """Bytes of the archive: entry ``data/<key>``, ``size`` numbers of ``dtype``."""

    key: str
    dtype: np.dtype
    size: int


class StoredTensor(NamedTuple):
    """A tensor that has been described, but not read; offset and strides count numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class TorchArchive:
    """The tensors of a file that ``torch.save`` wrote from a state dict, read one at a time.

    Raises:
        InputError: the file is not such an archive, or its pickle holds anything but tensors.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile) as error:
            raise InputError(
                f"{path} must be a zip file of PyTorch 1.6 or later, got: {one_line(error)}. "
                "Save the model as safetensors."
            ) from error
        pickles = [name for name in self._zip.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise InputError(f"{path} must hold one data.pkl, got {len(pickles)}.")
        self._prefix = pickles[0].removesuffix("data.pkl")
        self.tensors: dict[str, StoredTensor] = self._describe(pickles[0])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._zip.close()

    def read(self, name: str) -> np.ndarray:
        """Read one tensor.

        Raises:
            InputError: its storage is missing, cut, damaged, or smaller than the tensor.
        """
        storage, offset, shape, strides = self.tensors[name]
        last = offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
        if math.prod(shape) and not (min((offset, *strides)) >= 0 and last < storage.size):
            raise InputError(f"{self._path} must hold all of {name}, which leaves its storage.")
        content = self._read_entry(f"{self._prefix}data/{storage.key}")
        if len(content) != storage.size * storage.dtype.itemsize:
            raise InputError(
                f"{self._path} must hold {storage.size} numbers for {name}, got {len(content)} "
                f"bytes of {storage.dtype}."
            )
        flat = np.frombuffer(content, storage.dtype)[offset:]
        if not math.prod(shape):
            return np.zeros(shape, storage.dtype)
        item = storage.dtype.itemsize
        # Within the storage, as was checked above.
        return np.lib.stride_tricks.as_strided(flat, shape, [step * item for step in strides])

    def _read_entry(self, name: str) -> bytes:
        try:
            # What is not compressed cannot grow beyond the size of the file.
            if self._zip.getinfo(name).compress_type != zipfile.ZIP_STORED:
                raise InputError(f"{self._path} must not be compressed, got {name}.")
            return self._zip.read(name)
        except (OSError, KeyError, zipfile.BadZipFile, EOFError) as error:
            raise InputError(f"{self._path} is damaged: {one_line(error)}.") from error

    def _describe(self, name: str) -> dict[str, StoredTensor]:
        content = self._read_entry(name)
        if len(content) > _MAX_PICKLE_BYTES:
            raise InputError(f"{self._path} must describe tensors, got {len(content)} bytes of it.")
        try:
            loaded = _TensorUnpickler(content, self._path).load()
        except InputError:
            raise
        except Exception as error:  # bytes that are no pickle can raise anything
            raise InputError(f"{self._path} is damaged: {one_line(error)}.") from error
        if not isinstance(loaded, dict):
            raise InputError(f"{self._path} must hold named tensors, got {type(loaded).__name__}.")
        for key, tensor in loaded.items():
            if not (isinstance(key, str) and isinstance(tensor, StoredTensor)):
                raise InputError(f"{self._path} must hold tensors alone, got {key!r}.")
        return dict(loaded)


class _TensorUnpickler(pickle.Unpickler):
    """An unpickler that knows tensors and dictionaries, and refuses to look up anything else."""

    def __init__(self, content: bytes, path: Path) -> None:
        super().__init__(io.BytesIO(content))
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

    def persistent_load(self, pid: Any) -> _Storage:
        """Return the storage that a tensor refers to."""
        kind, dtype, key, _, size = pid
        if kind != "storage" or not isinstance(dtype, np.dtype) or not str(key).isalnum():
            raise InputError(f"{self._path} must refer to storages alone, got {pid!r}.")
        return _Storage(str(key), dtype, int(size))


def _rebuild_tensor(
    storage: _Storage,
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
