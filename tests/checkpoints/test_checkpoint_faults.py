import gc
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from process_group import wait_until
from tiny_checkpoints import (
    assert_same,
    make_batches,
    make_large_state,
    make_state,
    open_checkpointer,
    save_steps,
    small_disk,
)

from flax_transformer.checkpoints import reader
from flax_transformer.checkpoints.manifest import MANIFEST_NAME
from flax_transformer.checkpoints.reader import DamagedCheckpointError
from flax_transformer.errors import InputError

# Orbax drops the coroutines of a failed save without closing them.
ignore_dropped_coroutines = pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)


def largest_file(directory: Path) -> Path:
    return max((p for p in directory.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def cut(step: Path) -> None:
    file = largest_file(step / "state")
    os.truncate(file, file.stat().st_size // 2)


def zero(step: Path) -> None:
    file = largest_file(step / "state")
    file.write_bytes(bytes(file.stat().st_size))


def flip_a_bit(step: Path) -> None:
    file = largest_file(step / "state")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def empty(step: Path) -> None:
    shutil.rmtree(step)
    step.mkdir()


DAMAGES = {
    "cut": cut,
    "zeroed": zero,
    "bit": flip_a_bit,
    "empty": empty,
    "file deleted": lambda step: largest_file(step / "state").unlink(),
    "state deleted": lambda step: shutil.rmtree(step / "state"),
    "batches deleted": lambda step: shutil.rmtree(step / "batches"),
    "metadata deleted": lambda step: (step / "state" / "_METADATA").unlink(),
    "metadata garbage": lambda step: (step / "state" / "_METADATA").write_bytes(b"\xff{"),
    "root metadata garbage": lambda step: (
        (step / "_CHECKPOINT_METADATA").write_bytes(b"\xff{"),
        cut(step),
    ),
    "manifest deleted": lambda step: (step / MANIFEST_NAME).unlink(),
    "manifest cut": lambda step: os.truncate(step / MANIFEST_NAME, 70),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_is_named_and_the_step_before_is_used(
    tmp_path: Path, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    save_steps(tmp_path, 10, 20)
    damage(tmp_path / "20")
    with open_checkpointer(tmp_path) as checkpointer:
        with pytest.raises(DamagedCheckpointError, match=r"checkpoint .*/20 is damaged: .*Delete"):
            checkpointer.restore(20, like=make_state(0), batches=make_batches())
        restored = checkpointer.restore_latest(like=make_state(0), batches=make_batches())
        assert_same(restored, make_state(10))
        assert f"{tmp_path}/20 is damaged" in caplog.text
        assert checkpointer.steps() == [10]
        checkpointer.save(make_state(15), make_batches(), metrics={})
        checkpointer.save(make_state(20), make_batches(), metrics={})
        checkpointer.wait()
        assert checkpointer.steps() == [10, 15, 20]
        restored = checkpointer.restore(20, like=make_state(0), batches=make_batches())
    assert_same(restored, make_state(20))


def test_with_strict_a_damaged_latest_checkpoint_ends_the_run(tmp_path: Path) -> None:
    save_steps(tmp_path, 10, 20)
    flip_a_bit(tmp_path / "20")
    with open_checkpointer(tmp_path) as checkpointer:
        with pytest.raises(DamagedCheckpointError, match=r"/20 is damaged: state/.* has changed"):
            checkpointer.restore_latest(like=make_state(0), batches=make_batches(), strict=True)
        assert checkpointer.steps() == [10, 20]
    shutil.rmtree(tmp_path / "20")
    with open_checkpointer(tmp_path) as checkpointer:
        restored = checkpointer.restore_latest(
            like=make_state(0), batches=make_batches(), strict=True
        )
    assert_same(restored, make_state(10))


def test_all_damaged_is_an_error(tmp_path: Path) -> None:
    save_steps(tmp_path, 10, 20)
    cut(tmp_path / "10")
    empty(tmp_path / "20")
    with (
        open_checkpointer(tmp_path) as checkpointer,
        pytest.raises(InputError, match=r"every checkpoint in .* \(step 10, step 20\)"),
    ):
        checkpointer.restore_latest(like=make_state(0), batches=make_batches())
    assert {path.name for path in tmp_path.iterdir()} >= {"10", "20"}


def test_damaged_metrics_only_lose_the_score(tmp_path: Path) -> None:
    with open_checkpointer(tmp_path) as checkpointer:
        checkpointer.save(make_state(1), make_batches(), metrics={"bleu": 1.0})
    for file in (tmp_path / "1" / reader.METRICS_ITEM).iterdir():
        file.write_text("[1")
    with open_checkpointer(tmp_path) as checkpointer:
        assert checkpointer.metrics(1) == {}


def test_a_checkpoint_without_its_position_is_damaged(tmp_path: Path) -> None:
    save_steps(tmp_path, 1)
    position = tmp_path / "1" / "batches" / "process_0-of-1.json"
    position.write_text(position.read_text()[:-3])
    for verify, reason in ((True, "batches/process_0.* has changed"), (False, "JSONDecodeError")):
        with pytest.raises(DamagedCheckpointError, match=reason):
            reader.restore_state(
                tmp_path / "1", like=make_state(0), batches=make_batches(), verify=verify
            )
    position.unlink()
    with pytest.raises(DamagedCheckpointError, match="no position in"):
        reader.restore_state(
            tmp_path / "1", like=make_state(0), batches=make_batches(), verify=False
        )


@ignore_dropped_coroutines
def test_a_full_disk_ends_the_run_and_harms_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path / "disk", "3m") as disk:
        with open_checkpointer(disk) as checkpointer:
            for step in (1, 2, 3):
                checkpointer.save(make_large_state(step), make_batches(), metrics={})
            with pytest.raises(
                InputError,
                match=r"step 4 cannot be saved in .*: No space left on device\. The checkpoints "
                r"before it are intact \(step 1, step 2\)",
            ) as caught:
                checkpointer.finish(make_large_state(4), make_batches(), metrics={})
            assert "\n" not in str(caught.value)
            assert caplog.text.count("Trying again") == 2
            assert "step 3 cannot be saved" in caplog.text
            assert checkpointer.steps() == [1, 2]
        assert {path.name for path in disk.iterdir()} == {".lock", "1", "2"}
        with open_checkpointer(disk, keep_last=1) as checkpointer:
            restored = checkpointer.restore_latest(like=make_large_state(0), batches=make_batches())
            assert_same(restored, make_large_state(2))
    gc.collect()


@ignore_dropped_coroutines
def test_a_failed_save_is_made_good_when_there_is_space_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with small_disk(tmp_path / "disk", "4m") as disk:
        ballast = disk / "ballast"
        with open_checkpointer(disk / "run", keep_last=2, save_attempts=9) as checkpointer:
            checkpointer.save(make_large_state(1), make_batches(), metrics={})
            checkpointer.wait()
            ballast.write_bytes(bytes(shutil.disk_usage(disk).free - 700_000))
            batches = make_batches()

            def make_space() -> None:
                wait_until(lambda: caplog.text.count("Trying again") >= 2)
                ballast.unlink()

            cleaner = threading.Thread(target=make_space, daemon=True)
            cleaner.start()
            checkpointer.save(make_large_state(2), batches, metrics={})
            step = 2

            def train_a_step() -> bool:
                nonlocal step
                step += 1
                next(batches)
                checkpointer.retry_if_failed(make_large_state(step), batches, metrics={"bleu": 3})
                return checkpointer.steps() != [1]

            wait_until(train_a_step)
            cleaner.join()
            assert "checkpoint of step 2 cannot be saved" in caplog.text
            assert "No space left on device. Trying again in 0.05 s with step" in caplog.text
            assert checkpointer.steps() == [1, step]
            assert checkpointer.metrics(step) == {"bleu": 3}
            position = make_batches()
            restored = checkpointer.restore_latest(like=make_large_state(0), batches=position)
            assert_same(restored, make_large_state(step))
            assert next(position) == next(batches)
            # Retention goes on where it was.
            checkpointer.save(make_large_state(step + 1), batches, metrics={})
            checkpointer.finish(make_large_state(step + 2), batches, metrics={})
            assert checkpointer.steps() == [step, step + 1]
        assert not list((disk / "run").glob("*tmp*"))
    gc.collect()


def test_nothing_is_retried_when_nothing_has_failed(tmp_path: Path) -> None:
    with open_checkpointer(tmp_path) as checkpointer:
        checkpointer.retry_if_failed(make_state(1), make_batches(), metrics={})
        checkpointer.save(make_state(2), make_batches(), metrics={})
        checkpointer.retry_if_failed(make_state(3), make_batches(), metrics={})
        checkpointer.finish(make_state(4), make_batches(), metrics={})
        checkpointer.retry_if_failed(make_state(5), make_batches(), metrics={})
        assert checkpointer.steps() == [2]
    with pytest.raises(InputError, match="save_attempts must be at least 1, got 0"):
        open_checkpointer(tmp_path, save_attempts=0)


def test_a_directory_that_vanishes_ends_the_run(tmp_path: Path) -> None:
    with open_checkpointer(tmp_path / "run") as checkpointer:
        checkpointer.save(make_state(1), make_batches(), metrics={})
        checkpointer.wait()
        shutil.rmtree(tmp_path / "run")
        with pytest.raises(
            InputError, match=r"step 2 .* the directory is gone\. There is no other"
        ):
            checkpointer.save(make_state(2), make_batches(), metrics={})
    assert not (tmp_path / "run").exists()


def test_running_out_of_memory_leaves_whole_checkpoints(tmp_path: Path) -> None:
    too_many = 1 << 46  # more bytes than a process can address
    with (  # noqa: PT012
        pytest.raises(jax.errors.JaxRuntimeError, match=rf"allocating {4 * too_many} bytes"),
        open_checkpointer(tmp_path) as checkpointer,
    ):
        checkpointer.save(make_large_state(1), make_batches(), metrics={})
        jnp.zeros(too_many).block_until_ready()
    assert {path.name for path in tmp_path.iterdir()} == {".lock", "1"}
    restored = reader.restore_state(
        tmp_path / "1", like=make_large_state(0), batches=make_batches()
    )
    assert_same(restored, make_large_state(1))


SAVE_FOR_EVER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from tiny_checkpoints import make_batches, {make_state} as make_state, open_checkpointer

with open_checkpointer(Path(sys.argv[1]), keep_last=1) as checkpointer:
    for step in range(1, 10_000):
        checkpointer.save(make_state(step), make_batches(), metrics={{}})
        print(step, flush=True)
"""


def start_saving(directory: Path, make_state: str = "make_state") -> subprocess.Popen[str]:
    tests = Path(__file__).parent.parent
    script = SAVE_FOR_EVER.format(tests=str(tests), make_state=make_state)
    command = [sys.executable, "-c", script, str(directory)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("delay", [0.0, 0.03])
def test_kill_9_in_a_save_loses_nothing_complete(tmp_path: Path, delay: float) -> None:
    with start_saving(tmp_path) as process:
        assert process.stdout is not None
        while int(process.stdout.readline()) < 3:
            pass
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
    with open_checkpointer(tmp_path) as checkpointer:
        restored = checkpointer.restore_latest(like=make_state(0), batches=make_batches())
        assert restored is not None
        assert int(restored.step) >= 2
        assert_same(restored, make_state(int(restored.step)))
        checkpointer.save(make_state(int(restored.step) + 1), make_batches(), metrics={})
    assert not list(tmp_path.glob("*tmp*"))


def kill_in_first_save(directory: Path) -> bool:
    """Return whether the kill came before the save was complete."""
    with start_saving(directory, "make_large_state") as process:
        wait_until(lambda: any(directory.glob("*tmp*")) or process.poll() is not None)
        process.kill()
    assert process.returncode == -signal.SIGKILL
    return not reader.list_steps(directory)


def test_kill_9_in_the_first_save_begins_anew_with_a_message(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    attempts = (tmp_path / str(number) for number in range(10))
    directory = next(filter(kill_in_first_save, attempts))
    with open_checkpointer(directory) as checkpointer:
        restored = checkpointer.restore_latest(like=make_state(0), batches=make_batches())
        assert restored is None
        assert f"no complete checkpoint in {directory}; starting from step 0" in caplog.text
        checkpointer.save(make_state(1), make_batches(), metrics={})
    assert {path.name for path in directory.iterdir()} == {".lock", "1"}


def test_stale_temporary_directories_are_removed(tmp_path: Path) -> None:
    save_steps(tmp_path, 1)
    stale = tmp_path / "2.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "1", stale)
    with open_checkpointer(tmp_path) as checkpointer:
        assert checkpointer.steps() == [1]
        checkpointer.save(make_state(2), make_batches(), metrics={})
    assert not stale.exists()
    assert reader.list_steps(tmp_path) == [1, 2]
