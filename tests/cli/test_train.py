import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_experiment import write_corpus

from flax_transformer.checkpoints.reader import list_steps

ROOT = Path(__file__).parents[2]
CONFIG = """
from pathlib import Path
from tiny_experiment import make_tiny_experiment

def get_config():
    return make_tiny_experiment(Path(__file__).parent)
"""
OPTIONS = (
    "--training.num-steps=100",
    "--training.eval-every=100",
    "--training.checkpoint-every=100",
    "--training.log-every=1",
    "--training.average-last=1",
    "--evaluation.test-beam-size=1",
)


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    directory = tmp_path_factory.mktemp("with space")
    write_corpus(directory / "tiny")
    (directory / "config.py").write_text(CONFIG)
    return directory / "config.py"


def num_lines(path):
    return len(path.read_text().splitlines()) if path.exists() else 0


def interrupt(config_file, workdir, signal_number):
    """Train in a process of its own, send a signal after the next step; return what it printed."""
    metrics = workdir / "metrics.jsonl"
    lines_before = num_lines(metrics)
    process = subprocess.Popen(
        [sys.executable, "train.py", "--config", config_file, "--workdir", workdir, *OPTIONS],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests")},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    while num_lines(metrics) <= lines_before and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal_number)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 75, output
    return output


def read_losses(workdir):
    entries = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [(entry["step"], entry["loss"]) for entry in entries if "loss" in entry]


@pytest.mark.slow
def test_signals_end_a_run_in_good_order(tmp_path, config_file, run_main):
    for number in (signal.SIGTERM, signal.SIGINT):
        output = interrupt(config_file, tmp_path / "broken", number)
        last_step = list_steps(tmp_path / "broken" / "checkpoints")[-1]
        assert f"{number.name}: saved step {last_step}" in output
        command = f"--config '{config_file}' --workdir {tmp_path / 'broken'} {' '.join(OPTIONS)}"
        assert output.endswith(f"stopped early; to resume, give these options: {command}\n")
    for workdir in (tmp_path / "broken", tmp_path / "unbroken"):
        status, output, _ = run_main(
            "train", "--config", config_file, "--workdir", workdir, *OPTIONS
        )
        assert status == 0
        assert ("resuming after step" in output) == (workdir.name == "broken")
    assert read_losses(tmp_path / "broken") == read_losses(tmp_path / "unbroken")
    broken, unbroken = (
        (tmp_path / name / "model" / "model.safetensors").read_bytes()
        for name in ("broken", "unbroken")
    )
    assert broken == unbroken


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--config", "none.py", "--workdir", "run"], 1, "--config must be a Python file"),
        (["--workdir", "run"], 2, "--config must be given"),
        (["--config", "{config}"], 2, "--workdir must be given"),
        (["--config", "{config}", "--wrkdir=x"], 2, "must be given; did you mean --workdir?"),
        (["--help", "--config"], 2, "--config: expected one argument"),
        (
            ["--config", "{config}", "--workdir", "run", "--optimizer.lerning-rate", "1"],
            2,
            "did you mean --optimizer.learning-rate?",
        ),
        (
            ["--config", "{config}", "--workdir", "run", "--tokenizer.vocab-size", "5000"],
            1,
            "vocab_size must be at most",
        ),
        (["--config", "{config}", "--workdir", "{config}/run"], 1, "Not a directory"),
    ],
)
def test_wrong_usage_is_one_line(
    tmp_path, monkeypatch, config_file, run_main, options, status, message
):
    monkeypatch.chdir(tmp_path)
    argv = [option.format(config=config_file) for option in options]
    actual, _, errors = run_main("train", *argv)
    assert actual == status
    assert message in errors
    assert errors.count("\n") == 1


def test_help_lists_the_fields_of_the_config(config_file, run_main, capsys):
    with pytest.raises(SystemExit, match="0"):
        run_main("train", "--help", "--config", config_file)
    assert "--optimizer.learning-rate" in capsys.readouterr().out
