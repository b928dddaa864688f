"""One writer for a directory."""

import fcntl
import os
from pathlib import Path
from typing import IO

from flax_transformer.errors import InputError


def lock_directory(directory: Path) -> IO[str]:
    """Make `directory` if it is missing, and lock it for this process.

    Returns:
        A file that holds the lock; closing it, or the end of the process, releases the directory.

    Raises:
        InputError: the directory cannot be written to, or another process holds its lock.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        file = (directory / ".lock").open("a+", encoding="utf-8")
    except OSError as error:
        raise InputError(f"{directory} must be a writable directory, got: {error}.") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
    except BlockingIOError as error:
        file.seek(0)
        owner = file.read().strip()
        file.close()
        raise InputError(
            f"{directory} is in use by process {owner}. Wait for its end, or use another work "
            "directory."
        ) from error
    except OSError as error:
        file.close()
        raise InputError(f"{directory} must be a writable directory, got: {error}.") from error
    return file
