import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_checkpoints import small_disk

from flax_transformer.checkpoints.directory_lock import lock_directory
from flax_transformer.errors import InputError

HOLD = """
import sys, time
from pathlib import Path
from flax_transformer.checkpoints.directory_lock import lock_directory

lock = lock_directory(Path(sys.argv[1]))
print("locked", flush=True)
time.sleep(60)
"""


def test_another_process_is_named_and_when_it_is_killed_its_lock_is_void(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        owner = re.escape(f"process {holder.pid} on host {socket.gethostname()}")
        with pytest.raises(InputError, match=rf"{tmp_path} is in use by {owner}\. Wait for its"):
            lock_directory(tmp_path)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert f"process {holder.pid}" in (tmp_path / ".lock").read_text()
    with (
        lock_directory(tmp_path),
        pytest.raises(InputError, match=rf"in use by process {os.getpid()} on host"),
    ):
        lock_directory(tmp_path)


def test_closing_releases_the_directory(tmp_path: Path) -> None:
    lock_directory(tmp_path / "new").close()
    with lock_directory(tmp_path / "new") as again:
        assert not again.closed


def test_a_file_in_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="must be a writable directory"):
        lock_directory(tmp_path / "file")


def test_a_read_only_directory_is_refused(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(InputError, match=r"must be a writable directory, got: .*Read-only"):
            lock_directory(disk / "checkpoints")
