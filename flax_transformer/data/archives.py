"""Safe extraction of downloaded archives, without TensorFlow.

Nothing is written outside the destination: a name that leads out of it is refused, and no link is
ever created (a link to a file of the archive becomes a copy of it; other links and devices are
skipped). What comes out is limited in size, so that a small hostile file cannot fill the disk.
"""

import bz2
import gzip
import logging
import lzma
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Literal, Protocol

from flax_transformer.errors import InputError

ArchiveKind = Literal["tar", "zip", "gzip", "bzip2"]

_LOGGER = logging.getLogger(__name__)
_CHUNK_BYTES = 1 << 20
_MAX_ENTRIES = 100_000
# Text compresses three to ten times; archives made to fill disks, a thousand times and more.
_MAX_RATIO = 100
_MIN_LIMIT_BYTES = 1 << 30
_DAMAGED = (
    EOFError,
    lzma.LZMAError,
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
)


class _Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Writer:
    """Writes the files of one archive below a directory, up to a total size."""

    def __init__(
        self, archive: Path, directory: Path, max_bytes: int, progress: Callable[[int], object]
    ) -> None:
        self._archive = archive
        self._directory = directory
        self._max_bytes = max_bytes
        self._bytes_left = max_bytes
        self._entries_left = _MAX_ENTRIES
        self._progress = progress

    def path_of(self, name: str) -> Path:
        """Return where the entry of this name belongs; refuse names that lead elsewhere."""
        parts = PurePosixPath(name).parts
        if name.startswith("/") or "\\" in name or "\0" in name or ".." in parts:
            raise InputError(
                f"{self._archive} must stay within its folder, got an entry named {name!r}."
            )
        self._entries_left -= 1
        if self._entries_left < 0:
            raise InputError(f"{self._archive} must have at most {_MAX_ENTRIES} entries.")
        return self._directory.joinpath(*parts)

    def write(self, content: _Readable, path: Path) -> None:
        """Copy one file, counting its bytes."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as out:
            while chunk := content.read(_CHUNK_BYTES):
                self._bytes_left -= len(chunk)
                if self._bytes_left < 0:
                    raise InputError(
                        f"{self._archive} must unpack to at most {self._max_bytes} bytes, got "
                        "more: it does not look like text."
                    )
                out.write(chunk)
                self._progress(len(chunk))


def extract_archive(
    archive: Path,
    destination: Path,
    kind: ArchiveKind,
    *,
    max_bytes: int | None = None,
    progress: Callable[[int], object] = lambda num_bytes: None,
) -> None:
    """Extract an archive to ``destination``, which appears whole or not at all.

    Args:
        archive: the file to read; tar archives may be compressed in any way.
        destination: a new directory, for "gzip" and "bzip2" a new file.
        kind: what the archive is.
        max_bytes: limit of the total size; by default 100 times that of the archive, at least
            1 GiB.
        progress: called with the number of bytes of each piece that is written.

    Raises:
        InputError: the archive is damaged, too large, or has an entry that leads out of
            ``destination``.
    """
    if max_bytes is None:
        max_bytes = max(_MIN_LIMIT_BYTES, _MAX_RATIO * archive.stat().st_size)
    with _atomic(destination) as partial:
        writer = _Writer(archive, partial, max_bytes, progress)
        try:
            _EXTRACTORS[kind](archive, partial, writer)
        except (*_DAMAGED, OSError) as error:
            # An error of the system (no space left, ...) has a number; one of the content has not.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise InputError(
                f"{archive} must be a whole {kind} archive, got a damaged one ({error}). "
                "Remove it and prepare the dataset again."
            ) from None


@contextmanager
def _atomic(destination: Path) -> Iterator[Path]:
    """Give a path to write to, which becomes ``destination`` at the end, or goes on an error."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    holder = Path(tempfile.mkdtemp(prefix=".incomplete-", dir=destination.parent))
    try:
        yield holder / "content"
        (holder / "content").replace(destination)
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def _extract_tar(archive: Path, partial: Path, writer: _Writer) -> None:
    partial.mkdir()
    with tarfile.open(archive, "r:*") as tar:
        for member in tar:
            path = writer.path_of(member.name)
            if member.isdir():
                path.mkdir(parents=True, exist_ok=True)
                continue
            try:
                content = tar.extractfile(member)  # follows a link, within the archive only
            except KeyError:
                content = None
            if content is None:
                _LOGGER.warning("%s: skipped %r, no file of its own.", archive, member.name)
                continue
            with content:
                writer.write(content, path)


def _extract_zip(archive: Path, partial: Path, writer: _Writer) -> None:
    partial.mkdir()
    with zipfile.ZipFile(archive) as unzipped:
        for member in unzipped.infolist():
            path = writer.path_of(member.filename)
            if member.is_dir():
                path.mkdir(parents=True, exist_ok=True)
            elif member.flag_bits & 1:
                raise InputError(f"{archive} must not be encrypted, got {member.filename!r}.")
            else:
                with unzipped.open(member) as content:
                    writer.write(content, path)


def _extract_gzip(archive: Path, partial: Path, writer: _Writer) -> None:
    with gzip.open(archive) as content:
        writer.write(content, partial)


def _extract_bzip2(archive: Path, partial: Path, writer: _Writer) -> None:
    with bz2.open(archive) as content:
        writer.write(content, partial)


_EXTRACTORS: dict[ArchiveKind, Callable[[Path, Path, _Writer], None]] = {
    "tar": _extract_tar,
    "zip": _extract_zip,
    "gzip": _extract_gzip,
    "bzip2": _extract_bzip2,
}
