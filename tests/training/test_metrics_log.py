import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from flax_transformer.training.metrics_log import METRICS_FILE, TENSORBOARD_DIRECTORY, MetricsLog


def read_lines(workdir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (workdir / METRICS_FILE).read_text().splitlines()]


def open_log(workdir: Path, start_step: int = 0, progress: bool = False) -> MetricsLog:
    return MetricsLog(workdir, num_steps=40, start_step=start_step, progress=progress)


def test_json_lines_hold_what_was_written(tmp_path: Path) -> None:
    with open_log(tmp_path / "new") as log:
        log.write(1, {"loss": 2.5, "tokens_per_second": 17.0})
        assert read_lines(tmp_path / "new") == [{"step": 1, "loss": 2.5, "tokens_per_second": 17.0}]
        log.write(2, {"loss": float("nan"), "dev_bleu": float("inf")})
    assert read_lines(tmp_path / "new")[1] == {"step": 2, "loss": None, "dev_bleu": None}


def test_tensorboard_reads_the_events(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        log.write(3, {"loss": 2.5})
        log.write(5, {"loss": 1.5, "dev_bleu": 11.0})
    events = EventAccumulator(str(tmp_path / TENSORBOARD_DIRECTORY)).Reload()
    assert [(event.step, event.value) for event in events.Scalars("loss")] == [(3, 2.5), (5, 1.5)]
    assert [(event.step, event.value) for event in events.Scalars("dev_bleu")] == [(5, 11.0)]


def test_resume_replaces_the_steps_it_repeats(tmp_path: Path) -> None:
    with open_log(tmp_path) as log:
        for step in range(1, 8):
            log.write(step, {"loss": float(step)})
    with (tmp_path / METRICS_FILE).open("a") as file:
        file.write('{"step": 2, "los')  # killed while writing
    with open_log(tmp_path, start_step=4) as log:
        assert [line["step"] for line in read_lines(tmp_path)] == [1, 2, 3, 4]
        log.write(5, {"loss": 50.0})
    assert [line["loss"] for line in read_lines(tmp_path)] == [1.0, 2.0, 3.0, 4.0, 50.0]
    events = EventAccumulator(str(tmp_path / TENSORBOARD_DIRECTORY)).Reload()
    scalars = [(event.step, event.value) for event in events.Scalars("loss")]
    assert scalars == [(1, 1.0), (2, 2.0), (3, 3.0), (4, 4.0), (5, 50.0)]


def test_without_a_terminal_each_write_is_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_log(tmp_path, progress=True) as log:
        for step in range(1, 4):
            log.advance(step)
        log.write(3, {"loss": 3.21, "tokens_per_second": 18200.0})
    captured = capsys.readouterr()
    assert captured.out == ""
    line = captured.err.removesuffix("\n")
    assert line.startswith("step 3/40  loss 3.210  18,200 tokens/s  ")
    assert line.endswith(" left")
    with open_log(tmp_path, progress=False) as log:
        log.write(4, {"loss": 3.0})
    assert capsys.readouterr().err == ""


def test_on_a_terminal_a_bar_shows_the_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with open_log(tmp_path, start_step=10, progress=True) as log:
        log.advance(11)
        log.write(11, {"loss": 3.21})
        log.write(11, {"dev_bleu": 12.5})
    shown = capsys.readouterr().err
    assert "11/40" in shown
    assert "loss 3.210" in shown
    assert "step 11  dev_bleu 12.5\n" in shown


@pytest.mark.parametrize("obstacle", [METRICS_FILE, TENSORBOARD_DIRECTORY])
def test_a_log_that_cannot_be_written_warns_once(
    tmp_path: Path, obstacle: str, caplog: pytest.LogCaptureFixture
) -> None:
    if obstacle == METRICS_FILE:
        (tmp_path / METRICS_FILE).mkdir()
    else:
        (tmp_path / TENSORBOARD_DIRECTORY).write_text("")
    with caplog.at_level(logging.WARNING), open_log(tmp_path) as log:
        for step in range(3):
            log.write(step, {"loss": 1.0})
    assert len(caplog.records) == 1
    assert obstacle in caplog.text


def test_a_full_disk_leaves_whole_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        with open_log(disk) as log:
            for step in range(1000):
                log.write(step, {"loss": 1.0, "dev_bleu": 2.0, "learning_rate": 3.0})
        lines = read_lines(disk)
        assert 10 < len(lines) < 1000
        assert [line["step"] for line in lines] == list(range(len(lines)))
        assert len(caplog.records) == 2  # one a file
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_tensorflow_is_not_imported(tmp_path: Path) -> None:
    script = (
        "import sys, pathlib\n"
        "from flax_transformer.training.metrics_log import MetricsLog\n"
        "log = MetricsLog(pathlib.Path(sys.argv[1]), num_steps=1, start_step=0, progress=False)\n"
        "log.write(1, {'loss': 1.0})\n"
        "assert 'tensorflow' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)


def test_a_last_line_without_its_end_does_not_swallow_the_next(tmp_path: Path) -> None:
    (tmp_path / METRICS_FILE).write_text('{"step": 1}\n{"step": 2}')
    with open_log(tmp_path, start_step=2) as log:
        log.write(3, {"loss": 3.0})
    assert [line["step"] for line in read_lines(tmp_path)] == [1, 2, 3]
