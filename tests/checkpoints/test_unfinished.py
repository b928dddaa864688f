import shutil
import threading
from pathlib import Path

import pytest

from flax_transformer.checkpoints.unfinished import (
    list_unfinished,
    remove_unfinished,
    unfinished_path,
)


def write(directory: Path, number: int) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / str(number)).write_bytes(b"late")


def test_only_what_is_not_complete_is_listed_and_removed(tmp_path: Path) -> None:
    write(tmp_path / "3", 0)
    write(unfinished_path(tmp_path, 4) / "state", 0)
    write(unfinished_path(tmp_path, 5), 0)
    assert {path.name for path in list_unfinished(tmp_path)} == {
        "4.orbax-checkpoint-tmp",
        "5.orbax-checkpoint-tmp",
    }
    remove_unfinished(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["3"]


def test_what_threads_still_write_is_removed_too(tmp_path: Path) -> None:
    """As TensorStore's do after an error: they make the directory anew, now and then."""
    late = unfinished_path(tmp_path, 4)
    write(late, 0)
    removals = 0

    def write_on() -> None:
        nonlocal removals
        while removals < 7:
            if not late.exists():
                removals += 1
                write(late / "state", removals)

    writer = threading.Thread(target=write_on, daemon=True)
    writer.start()
    remove_unfinished(tmp_path, pause=0.1)
    writer.join(timeout=10)
    assert removals == 7
    assert not list_unfinished(tmp_path)


def test_what_cannot_be_removed_is_named_once_and_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write(unfinished_path(tmp_path, 4), 0)
    monkeypatch.setattr(shutil, "rmtree", lambda path, ignore_errors: None)
    remove_unfinished(tmp_path, pause=0.01, patience=0.05)
    assert [record.getMessage() for record in caplog.records] == [
        f"cannot remove all of 4.orbax-checkpoint-tmp in {tmp_path}"
    ]
    assert list_unfinished(tmp_path)
