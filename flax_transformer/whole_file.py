"""Files that are written whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a path beside ``path`` to write to; what is there takes its place at the end.

    On an error it is removed, and what was at ``path`` stays. One process at a time may do this
    with a path; what a killed one left is written over by the next.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_file(path: Path, content: bytes | str) -> None:
    """Write a file, text in UTF-8, so that no reader ever sees a part of it.

    Raises:
        OSError: it cannot be written; what was there stays.
    """
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
    except OSError as error:  # which need not name a file, and else names the temporary one
        raise OSError(error.errno, error.strerror, str(path)) from error
