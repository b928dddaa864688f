"""Named arrays in safetensors files, which cannot hold code."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from flax_transformer.errors import InputError


def save_tensors(
    path: Path, tensors: Mapping[str, Any], *, metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays (of JAX or NumPy) and read them back to compare.

    Args:
        path: file to write.
        tensors: arrays by their names.
        metadata: texts that go with them.

    Raises:
        InputError: the file cannot be written, or does not read back as it was written.
    """
    # safetensors writes the wrong values of an array that is not contiguous. An array of no
    # dimensions, which ascontiguousarray would give one, is always contiguous.
    arrays = {name: np.asarray(tensor, order="C") for name, tensor in tensors.items()}
    try:
        save_file(arrays, path, None if metadata is None else dict(metadata))
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path} cannot be written: {error}.") from error
    written = load_tensors(path)
    for name, array in arrays.items():
        if written[name].dtype != array.dtype or written[name].tobytes() != array.tobytes():
            raise InputError(f"{path} does not read back as it was written: {name} differs.")


def load_tensors(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of a file.

    Raises:
        InputError: the file is missing, cut, or not safetensors.
    """
    if not path.is_file():
        raise InputError(f"{path} must be a file, got nothing there.")
    try:
        return load_file(path)
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(f"{path} is damaged or no safetensors file: {error}.") from error
