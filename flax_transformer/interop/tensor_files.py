"""The tensors of a model directory in the layout of the ``transformers`` library.

They lie in one file or in several with an index beside them. Names and shapes are known at once;
each tensor is read when it is asked for, from a file that is mapped into memory.
"""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from flax_transformer.errors import InputError
from flax_transformer.interop.legacy_torch_file import LegacyTorchFile
from flax_transformer.interop.safetensors_io import SafetensorsFile, TensorSignature
from flax_transformer.interop.torch_archive import TorchArchive
from flax_transformer.json_config import read_json_object
from flax_transformer.tree_paths import shorten

SAFETENSORS_FILE = "model.safetensors"
TORCH_FILE = "pytorch_model.bin"
INDEX_SUFFIX = ".index.json"

_ZIP_MAGIC = b"PK\x03\x04"
"""What a file begins with that PyTorch 1.6 or later wrote."""


class TensorFile(Protocol):
    """An open file of named tensors."""

    @property
    def signatures(self) -> Mapping[str, TensorSignature]:
        """Shape and dtype of every tensor, by its name."""

    def read(self, name: str) -> np.ndarray:
        """Read one tensor."""


class TensorFiles:
    """The tensors of all files of a model.

    Attributes:
        description: what to call the whole in messages.
        signatures: shape and dtype of every tensor, by its name.
    """

    def __init__(self, description: str, files: Mapping[str, TensorFile]) -> None:
        self.description = description
        self.signatures: dict[str, TensorSignature] = {}
        self._file_of: dict[str, TensorFile] = {}
        for file_name, file in files.items():
            if twice := sorted(file.signatures.keys() & self.signatures.keys()):
                raise InputError(
                    f"{description} must hold each tensor once, got {shorten(twice)} again in "
                    f"{file_name}."
                )
            self.signatures.update(file.signatures)
            self._file_of.update(dict.fromkeys(file.signatures, file))

    def read(self, name: str) -> np.ndarray:
        """Read the tensor ``name``, one of ``signatures``.

        Raises:
            InputError: its file is damaged.
        """
        return self._file_of[name].read(name)


class _TorchFile:
    def __init__(self, path: Path, stack: contextlib.ExitStack) -> None:
        if not path.is_file():
            raise InputError(f"{path} must be a file, got nothing there.")
        with path.open("rb") as content:
            is_zip = content.read(len(_ZIP_MAGIC)) == _ZIP_MAGIC
        self._tensors: TorchArchive | LegacyTorchFile = (
            stack.enter_context(TorchArchive(path)) if is_zip else LegacyTorchFile(path)
        )
        self.signatures = {
            name: TensorSignature(tensor.shape, tensor.storage.dtype)
            for name, tensor in self._tensors.tensors.items()
        }

    def read(self, name: str) -> np.ndarray:
        return self._tensors.read(name)


@contextlib.contextmanager
def open_tensors(directory: Path) -> Iterator[TensorFiles]:
    """Open the tensors of ``directory``: safetensors where there are, PyTorch's files otherwise.

    Raises:
        InputError: there is none, one is damaged, or an index does not describe what is there.
    """
    with contextlib.ExitStack() as stack:
        for name, open_file in ((SAFETENSORS_FILE, SafetensorsFile), (TORCH_FILE, _TorchFile)):
            if (directory / name).is_file():
                file: TensorFile = open_file(directory / name, stack)
                yield TensorFiles(str(directory / name), {name: file})
                return
            index = directory / f"{name}{INDEX_SUFFIX}"
            if index.is_file():
                placed = read_index(index)
                files: dict[str, TensorFile] = {
                    shard: open_file(directory / shard, stack)
                    for shard in sorted(set(placed.values()))
                }
                _check_index(index, placed, files)
                yield TensorFiles(str(index), files)
                return
        raise InputError(
            f"{directory} must hold {SAFETENSORS_FILE} or {TORCH_FILE}, or an index of one, got "
            "neither."
        )


def read_index(path: Path) -> dict[str, str]:
    """Read which file each tensor lies in.

    Raises:
        InputError: the index is no such file, or names a file outside its directory.
    """
    placed = read_json_object(path).get("weight_map")
    if not (isinstance(placed, dict) and placed) or not all(
        isinstance(shard, str) for shard in placed.values()
    ):
        raise InputError(f"{path} must map tensors to files by weight_map, got something else.")
    # In the hub's cache a model's files are links to its blobs, two levels up.
    in_cache = path.parent.parent.name == "snapshots"
    root = (path.parent.parent.parent if in_cache else path.parent).resolve()
    for shard in sorted(set(placed.values())):
        is_plain = Path(shard).name == shard and "\\" not in shard and shard not in ("", "..")
        if not (is_plain and (path.parent / shard).resolve().is_relative_to(root)):
            raise InputError(f"{path} must name files beside it, got {shard!r}.")
    return placed


def _check_index(index: Path, placed: Mapping[str, str], files: Mapping[str, TensorFile]) -> None:
    """Raise InputError unless the files hold what the index says, and nothing else."""
    found = {name: shard for shard, file in files.items() for name in file.signatures}
    wrong = [name for name, shard in placed.items() if name not in files[shard].signatures]
    unexpected = [name for name in found if name not in placed]
    if wrong or unexpected:
        phrases = [f"{name} is not in {placed[name]}" for name in wrong]
        phrases += [f"{name} of {found[name]} is not in the index" for name in unexpected]
        raise InputError(f"{index} must fit the files beside it, but {shorten(phrases)}.")
