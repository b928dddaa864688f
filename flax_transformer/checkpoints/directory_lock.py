"""One writer for a directory."""

import fcntl
import os
import socket
from pathlib import Path
from typing import IO

from flax_transformer.errors import InputError


def lock_directory(directory: Path) -> IO[str]:
    """Make `directory` if it is missing, and lock it for this process.

    The lock is one of the operating system (``flock``) on the file ``.lock``, which names its
    owner. The system releases it when the process ends, however it ends: a file that a dead process
    left is no lock, and the next process takes it over. Between hosts that share a file system the
    lock holds if that file system passes ``flock`` on, as NFS does.

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
        file.write(f"process {os.getpid()} on host {socket.gethostname()}\n")
        file.flush()
    except BlockingIOError as error:
        file.seek(0)
        owner = file.read().strip() or "another process"
        file.close()
        raise InputError(
            f"{directory} is in use by {owner}. Wait for its end, or use another work directory."
        ) from error
    except OSError as error:
        file.close()
        raise InputError(f"{directory} must be a writable directory, got: {error}.") from error
    return file
