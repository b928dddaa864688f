import shlex
import signal

import pytest
from process_group import finish, start_process, wait_until
from tiny_experiment import write_corpus

from flax_transformer.checkpoints.reader import list_steps

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


@pytest.mark.slow
def test_signals_end_a_run_in_good_order(tmp_path, config_file, run_main):
    options = ["--config", str(config_file), "--workdir", str(tmp_path), *OPTIONS]
    process = start_process("train.py", *options, num_devices=8)
    metrics = tmp_path / "metrics.jsonl"

    def has_begun():
        assert process.poll() is None, finish(process)
        return metrics.exists() and metrics.read_bytes()

    wait_until(has_begun)
    process.send_signal(signal.SIGTERM)
    (ended,) = finish(process)
    assert ended.status == 75, ended
    (step,) = list_steps(tmp_path / "checkpoints")
    assert f"SIGTERM: saved step {step}\n" in ended.output
    _, resume = ended.output.splitlines()[-1].split("to resume: ")
    _, _, *options_to_resume = shlex.split(resume)
    assert options_to_resume == options
    status, output, _ = run_main("train", *options_to_resume)
    assert status == 0
    assert f"resuming after step {step} of 100" in output
    assert (tmp_path / "model" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--config", "none.py", "--workdir", "run"], 1, "--config must be a Python file"),
        (["--workdir", "run"], 2, "--config must be given"),
        (["--config", "{config}"], 2, "--workdir must be given"),
        (["--config", "{config}", "--workdir", ""], 2, "must be a path, got nothing"),
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
