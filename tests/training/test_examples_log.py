import json
import logging
import math

import pytest

from flax_transformer.run_layout import EXAMPLES_FILE, SKIPPED_FILE
from flax_transformer.training.divergence import StepOutcome
from flax_transformer.training.examples_log import ExamplesLog


def outcome(step, *, loss=2.0, gradient_norm=1.0, loss_scale=1.0):
    return StepOutcome(step, loss, gradient_norm, 0, loss_scale, [step, 10 * step])


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def lines(*steps):
    return [{"step": step, "pairs": [step, 10 * step]} for step in steps]


@pytest.fixture(autouse=True)
def warnings(caplog):
    caplog.set_level(logging.WARNING)
    return caplog


@pytest.mark.parametrize("every_step", [True, False])
def test_every_step_is_written_if_asked_for(tmp_path, every_step):
    log = ExamplesLog(tmp_path, start_step=0, every_step=every_step)
    for step in (1, 2):
        log.write(outcome(step))
    assert read_lines(tmp_path / EXAMPLES_FILE) == lines(*((1, 2) if every_step else ()))
    assert read_lines(tmp_path / SKIPPED_FILE) == []


@pytest.mark.parametrize(("loss", "gradient_norm"), [(math.nan, math.nan), (2.0, math.inf)])
def test_the_pairs_of_a_step_that_is_left_out_are_named(tmp_path, warnings, loss, gradient_norm):
    log = ExamplesLog(tmp_path, start_step=0, every_step=False)
    log.write(outcome(1))
    log.write(outcome(2, loss=loss, gradient_norm=gradient_norm))
    assert read_lines(tmp_path / SKIPPED_FILE) == lines(2)
    (message,) = warnings.messages
    assert message == (
        f"step 2: the loss is {loss:g}, its gradient norm {gradient_norm:g}; the update is left "
        f"out and its 2 examples are named in {SKIPPED_FILE}"
    )


def test_a_scale_that_was_too_large_is_no_fault_of_the_pairs(tmp_path, warnings):
    log = ExamplesLog(tmp_path, start_step=0, every_step=True)
    log.write(outcome(1, gradient_norm=math.inf, loss_scale=1024.0))
    assert read_lines(tmp_path / SKIPPED_FILE) == []
    assert read_lines(tmp_path / EXAMPLES_FILE) == lines(1)
    assert not warnings.messages


def test_steps_that_are_repeated_are_written_once(tmp_path):
    first = ExamplesLog(tmp_path, start_step=0, every_step=True)
    for step in range(1, 6):
        first.write(outcome(step, gradient_norm=math.nan if step % 2 else 1.0))
    # As it is left when a process dies within a line.
    with (tmp_path / EXAMPLES_FILE).open("a") as file:
        file.write('{"step": 6, "pa')
    resumed = ExamplesLog(tmp_path, start_step=3, every_step=True)
    assert read_lines(tmp_path / EXAMPLES_FILE) == lines(1, 2, 3)
    assert read_lines(tmp_path / SKIPPED_FILE) == lines(1, 3)
    for step in range(4, 8):
        resumed.write(outcome(step))
    assert read_lines(tmp_path / EXAMPLES_FILE) == lines(*range(1, 8))


def test_each_process_has_files_of_its_own_and_fewer_processes_drop_lines_of_all(
    tmp_path, warnings, monkeypatch
):
    for process in range(3):
        monkeypatch.setattr("jax.process_index", lambda process=process: process)
        monkeypatch.setattr("jax.process_count", lambda: 3)
        log = ExamplesLog(tmp_path, start_step=0, every_step=True)
        for step in (1, 2, 3):
            log.write(outcome(step, loss=math.nan))
    assert "are named in skipped.jsonl" in warnings.messages[0]
    assert "are named in skipped.2.jsonl" in warnings.messages[-1]
    monkeypatch.setattr("jax.process_index", lambda: 0)
    monkeypatch.setattr("jax.process_count", lambda: 1)
    ExamplesLog(tmp_path, start_step=2, every_step=True)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {
        f"{kind}{process}.jsonl" for kind in ("examples", "skipped") for process in ("", ".1", ".2")
    }
    for name in names:
        assert read_lines(tmp_path / name) == lines(1, 2)
