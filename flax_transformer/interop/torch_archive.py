"""PyTorch's zip files of tensors: a pickle that describes them, and the bytes of their storages."""

import io
import zipfile
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from flax_transformer.errors import InputError, one_line
from flax_transformer.interop.torch_pickle import (
    MAX_PICKLE_BYTES,
    StoredTensor,
    check_bounds,
    check_state_dict,
    load_pickle,
    view_tensor,
)


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
            raise InputError(f"{path} is damaged: {one_line(error)}.") from error
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
        tensor = self.tensors[name]
        storage = tensor.storage
        check_bounds(tensor, name, self._path)
        content = self._read_entry(f"{self._prefix}data/{storage.key}")
        if len(content) != storage.size * storage.dtype.itemsize:
            raise InputError(
                f"{self._path} must hold {storage.size} numbers for {name}, got {len(content)} "
                f"bytes of {storage.dtype}."
            )
        return view_tensor(tensor, np.frombuffer(content, storage.dtype))

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
        if len(content) > MAX_PICKLE_BYTES:
            raise InputError(f"{self._path} must describe tensors, got {len(content)} bytes of it.")
        return check_state_dict(load_pickle(io.BytesIO(content), self._path), self._path)
