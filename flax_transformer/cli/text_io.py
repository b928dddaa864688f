"""Reading and writing lines of text."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, TextIO

from flax_transformer.cli.command_parser import UsageError
from flax_transformer.data.text_lines import decode_lines
from flax_transformer.errors import InputError


@contextlib.contextmanager
def open_input(path: Path | None) -> Iterator[BinaryIO]:
    """Open the bytes of ``path``, or of standard input for None."""
    if path is None:
        if sys.stdin is None:
            raise InputError("standard input must be open, or --input be given.")
        yield sys.stdin.buffer
    else:
        with path.open("rb") as stream:
            yield stream


def iterate_lines(stream: BinaryIO, name: str, *, strict: bool) -> Iterator[str]:
    """Yield the lines of a stream as they come; see :func:`decode_lines`.

    Raises:
        InputError: a line is not UTF-8, if ``strict``.
        OSError: the stream cannot be read; it names ``name``.
    """
    return decode_lines(_name_faults(stream, name), name, strict=strict)


def read_lines(path: Path) -> list[str]:
    """Return the lines of a file; bytes that are not UTF-8 become U+FFFD, with a warning."""
    with open_input(path) as stream:
        return list(iterate_lines(stream, str(path), strict=False))


def count_lines(path: Path) -> int | None:
    """Return the number of lines of a regular file, None for a pipe or another device."""
    if not path.is_file():
        return None
    with path.open("rb") as stream:
        return sum(1 for _ in stream)


@contextlib.contextmanager
def open_output(path: Path | None, *, inputs: Sequence[Path] = ()) -> Iterator[TextIO]:
    """Open ``path`` to write UTF-8, or standard output for None.

    A file is written under a temporary name beside it and gets its own at the end: until then, and
    if anything fails, what was there stays.

    Args:
        path: where to write.
        inputs: files that are read, and that ``path`` may not be.

    Raises:
        UsageError: ``path`` is one of ``inputs``.
        OSError: it cannot be written.
    """
    if path is None:
        if sys.stdout is None:
            raise InputError("standard output must be open, or --output be given.")
        yield sys.stdout
        return
    for source in inputs:
        if path.exists() and source.exists() and path.samefile(source):
            raise UsageError(f"the output must be another file than the input, got {path} for both")
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists() and not path.is_file():  # a device or a named pipe: nothing to replace
        with path.open("w", encoding="utf-8", newline="\n") as stream:
            yield stream
        return
    if not path.parent.is_dir():
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path.parent))
    target = path.resolve()  # of a symbolic link, the file is replaced, not the link
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with _file_named(path), temporary.open("x", encoding="utf-8", newline="\n") as stream:
            yield stream
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _name_faults(stream: BinaryIO, name: str) -> Iterator[bytes]:
    with _file_named(name):
        yield from stream


@contextlib.contextmanager
def _file_named(name: Path | str) -> Iterator[None]:
    """Give the OSError of a read or write, which names no file, the name of its file."""
    try:
        yield
    except OSError as error:
        if error.filename is None and error.errno is not None:
            raise OSError(error.errno, error.strerror, str(name)) from error
        raise
