"""PyTorch's files of tensors from before version 1.6: pickles, and behind them the numbers.

Four pickles follow each other: a magic number, the version of the format, what is said of the
machine, and the state dict; then one of the storages' keys. Behind them lies each storage, in the
order of the keys: the count of its numbers as an int64, and the numbers.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

from flax_transformer.errors import InputError
from flax_transformer.interop.torch_pickle import (
    MAX_PICKLE_BYTES,
    Storage,
    check_bounds,
    check_state_dict,
    load_pickle,
    view_tensor,
)

_MAGIC = 0x1950A86A20F9469CFC6C
_PROTOCOL = 1001
_COUNT_DTYPE = np.dtype("<i8")


class LegacyTorchFile:
    """The tensors of such a file, mapped into memory and read one at a time.

    Raises:
        InputError: the file is none, its pickles hold anything but tensors, or its numbers are not
            as many as they say.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        size = path.stat().st_size
        with path.open("rb") as stream:
            bounded = _Bounded(stream, MAX_PICKLE_BYTES)
            self._check_header(bounded)
            self.tensors = check_state_dict(load_pickle(bounded, path), path)
            keys = load_pickle(bounded, path)
            end = stream.tell()
        storages = self._find_storages(keys)
        self._offsets = dict(self._locate(storages, end, size))

    def read(self, name: str) -> np.ndarray:
        """Read one tensor.

        Raises:
            InputError: the tensor leaves its storage.
        """
        tensor = self.tensors[name]
        storage = tensor.storage
        check_bounds(tensor, name, self._path)
        if not storage.size:
            return np.zeros(tensor.shape, storage.dtype)
        # Mapped as bytes: the numbers need not lie at a multiple of their size.
        mapped = np.memmap(
            self._path,
            np.uint8,
            "r",
            offset=self._offsets[storage.key],
            shape=storage.size * storage.dtype.itemsize,
        )
        return np.array(view_tensor(tensor, mapped.view(storage.dtype)))

    def _check_header(self, stream: "_Bounded") -> None:
        for expected in (_MAGIC, _PROTOCOL):
            if load_pickle(stream, self._path) != expected:
                raise InputError(
                    f"{self._path} must be a file that torch.save wrote, got another one. Save the "
                    "model as safetensors."
                )
        machine = load_pickle(stream, self._path)
        if not (isinstance(machine, dict) and machine.get("little_endian") is True):
            raise InputError(f"{self._path} must hold numbers whose low bytes are first.")

    def _find_storages(self, keys: Any) -> dict[str, Storage]:
        """Return the storages of all tensors by their keys, in the order in which they lie."""
        used: dict[str, Storage] = {}
        for name, tensor in self.tensors.items():
            if used.setdefault(tensor.storage.key, tensor.storage) != tensor.storage:
                raise InputError(f"{self._path} must say one thing of the storage of {name}.")
        if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(used):
            raise InputError(f"{self._path} must list the storages of its tensors, each once.")
        return {str(key): used[str(key)] for key in keys}

    def _locate(
        self, storages: Mapping[str, Storage], start: int, file_size: int
    ) -> Iterator[tuple[str, int]]:
        """Yield where the numbers of each storage begin."""
        with self._path.open("rb") as stream:
            for key, storage in storages.items():
                stream.seek(start)
                count = int.from_bytes(stream.read(_COUNT_DTYPE.itemsize), "little", signed=True)
                start += _COUNT_DTYPE.itemsize
                num_bytes = storage.size * storage.dtype.itemsize
                if count != storage.size or num_bytes < 0 or start + num_bytes > file_size:
                    raise InputError(
                        f"{self._path} must hold {storage.size} numbers in storage {key}, got "
                        f"{min(count, (file_size - start) // storage.dtype.itemsize)}."
                    )
                yield key, start
                start += num_bytes
        if start != file_size:
            raise InputError(
                f"{self._path} must end with its storages, got {file_size - start} more bytes."
            )


class _Bounded:
    """A stream that lets a pickle read up to a number of bytes."""

    def __init__(self, stream: IO[bytes], limit: int) -> None:
        self._stream = stream
        self._left = limit

    def read(self, size: int, /) -> bytes:
        """Read up to ``size`` bytes."""
        return self._take(self._stream.read(size if 0 <= size <= self._left else self._left + 1))

    def readline(self) -> bytes:
        """Read up to the end of a line."""
        return self._take(self._stream.readline(self._left + 1))

    def _take(self, content: bytes) -> bytes:
        self._left -= len(content)
        if self._left < 0:
            raise ValueError("its pickles are too long")
        return content
