"""Small files of a run that every checkpoint carries, so that it is complete in itself."""

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from flax_transformer.errors import InputError
from flax_transformer.whole_file import write_file

Attachments: TypeAlias = Mapping[str, str]
"""The content of files, in base64, by their path below the run's work directory."""


def pack_files(directory: Path, names: Sequence[str]) -> Attachments:
    """Read the files below ``directory`` that are named, or that lie in a folder named.

    Raises:
        OSError: a file cannot be read.
    """
    paths = [
        path
        for name in names
        for path in sorted([directory / name, *(directory / name).rglob("*")])
        if path.is_file()
    ]
    return {
        path.relative_to(directory).as_posix(): base64.b64encode(path.read_bytes()).decode()
        for path in paths
    }


def unpack_files(attachments: Attachments, directory: Path) -> list[str]:
    """Write those files that are missing below ``directory``; return their names.

    Raises:
        OSError: a file cannot be written.
        InputError: a name leads out of ``directory``.
    """
    for name in attachments:
        if not (directory / name).resolve().is_relative_to(directory.resolve()):
            raise InputError(f"files of a checkpoint must lie below {directory}, got {name!r}.")
    missing = [name for name in attachments if not (directory / name).exists()]
    for name in missing:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_file(path, base64.b64decode(attachments[name]))
    return missing
