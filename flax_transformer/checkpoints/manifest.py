"""Hashes of the files of a checkpoint: proof that none was cut, lost or altered."""

import hashlib
from pathlib import Path

MANIFEST_NAME = "manifest.sha256"


def write_manifest(directory: Path) -> None:
    """Write the SHA-256 of every file in a subdirectory of `directory` to ``manifest.sha256``.

    The format is that of ``sha256sum``, which can check it too: ``sha256sum -c manifest.sha256``.
    """
    paths = sorted(path for path in directory.glob("*/**/*") if path.is_file())
    lines = [f"{_sha256(path)}  {path.relative_to(directory).as_posix()}\n" for path in paths]
    (directory / MANIFEST_NAME).write_text("".join(lines), encoding="utf-8")


def find_damage(directory: Path) -> str | None:
    """Compare the files below `directory` with its manifest.

    Returns:
        None if every file in the manifest is there unchanged, else a phrase that names the first
        one that is not. Files that are not in the manifest are ignored.
    """
    try:
        text = (directory / MANIFEST_NAME).read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return f"{MANIFEST_NAME} is missing"
    except OSError as error:
        return f"{MANIFEST_NAME} cannot be read: {error}"
    if not text:
        return f"{MANIFEST_NAME} is empty"
    for line in text.splitlines():
        expected, _, name = line.partition("  ")
        if not (directory / name).is_file():
            return f"{name or MANIFEST_NAME} is missing or not readable"
        try:
            is_same = _sha256(directory / name) == expected
        except OSError as error:
            return f"{name} cannot be read: {error}"
        if not is_same:
            return f"{name} has changed since it was written"
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
