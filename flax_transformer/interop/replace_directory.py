"""Write a directory in one piece: the old one or the new one is there, never half of one."""

import shutil
from collections.abc import Callable, Collection
from pathlib import Path

from flax_transformer.errors import InputError
from flax_transformer.tree_paths import shorten


def replace_directory(
    directory: Path, write: Callable[[Path], None], *, may_hold: Collection[str]
) -> None:
    """Let ``write`` fill a directory, and put it in the place of the one that may be there.

    It is written under another name and renamed when it is complete.

    Args:
        directory: where it shall be.
        write: is given the path of an empty directory.
        may_hold: names that may be in the old directory, which is lost.

    Raises:
        InputError: ``directory`` holds anything else, or cannot be written.
    """
    directory = directory.resolve()  # a link stays, and what it leads to is replaced
    new = directory.with_name(f".{directory.name}.new")
    old = name_of_old(directory)
    try:
        _check_replaceable(directory, may_hold)
        shutil.rmtree(new, ignore_errors=True)  # what a process that was killed left there
        new.mkdir(parents=True)
        write(new)
        _exchange(directory, new, old)
    except OSError as error:
        raise InputError(f"model {directory} cannot be written: {error}.") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def name_of_old(directory: Path) -> Path:
    """Return what a directory is called while another one takes its place."""
    resolved = directory.resolve()
    return resolved.parent / f".{resolved.name}.old"


def _check_replaceable(directory: Path, may_hold: Collection[str]) -> None:
    if not directory.exists():
        return
    names = {path.name for path in directory.iterdir()} if directory.is_dir() else {"a file"}
    if others := sorted(names - set(may_hold)):
        raise InputError(
            f"{directory} must be new, empty or a model directory to be written to, "
            f"got {shorten(others)} in it."
        )


def _exchange(directory: Path, new: Path, old: Path) -> None:
    """Put ``new`` in the place of ``directory``, or leave ``directory`` as it is."""
    if not directory.exists():
        new.rename(directory)
        return
    shutil.rmtree(old, ignore_errors=True)
    directory.rename(old)
    try:
        new.rename(directory)
    except BaseException:
        old.rename(directory)
        raise
    shutil.rmtree(old, ignore_errors=True)
