import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "flax_transformer", "plan")
CONFIG = """
from pathlib import Path
from tiny_experiment import make_tiny_experiment

def get_config():
    return make_tiny_experiment(Path(__file__).parent)
"""
OPTIONS = (
    "--model.architecture=decoder_only",
    "--model.num-encoder-layers=0",
    "--model.num-heads=4",
    "--tokenizer.vocab-size=320",
    "--pipeline.batch-tokens=320",
)


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("plan") / "config.py"
    path.write_text(CONFIG)
    return path


def test_a_plan_for_more_devices_than_there_are(config_file):
    mesh = "data=2,fsdp=4,tensor=2"
    done = subprocess.run(
        [*COMMAND, "--config", config_file, "--mesh", mesh, "--device=v5p", "--json", *OPTIONS],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        check=True,
    )
    plan = json.loads(done.stdout)
    assert plan["device"] == "Google TPU v5p"
    assert plan["mesh"] == {"data": 2, "fsdp": 4, "tensor": 2}
    assert plan["num_devices"] == 16
    assert plan["batch"]["num_tokens"] == 320
    # Tables and matrices are split in eight, what is left is a few vectors.
    assert 1 / 8 < plan["memory_per_device"]["parameters"] / (4 * plan["num_parameters"]) < 1 / 6
    assert done.stderr.startswith("compiling for 16 simulated devices ...\n")


def test_a_plan_is_a_table(config_file, run_main):
    status, output, errors = run_main(
        "plan", "--config", config_file, "--mesh", "data=2,tensor=2", *OPTIONS
    )
    assert status == 0
    assert errors == "compiling for 4 simulated devices ...\n"
    assert output.startswith("4 x NVIDIA H200 SXM 141 GB (2 data x 1 fsdp x 2 tensor)\n")
    for heading in ("memory of a device", "FLOPs of a step", "collectives", "time of a step"):
        assert f"\n{heading}" in output
    assert max(map(len, output.splitlines())) <= 100


@pytest.mark.parametrize(
    ("options", "status", "message"),
    [
        (["--mesh", "data=2"], 2, "--config must be given"),
        (["--config", "{config}"], 2, "--mesh must be given"),
        (["--config", "none.py", "--mesh", "data=2"], 1, "--config must be a Python file"),
        (["--config", "{config}", "--mesh", "data=-1"], 2, "there are no devices to fill"),
        (["--config", "{config}", "--mesh", "data=two"], 2, "got 'data=two'"),
        (["--config", "{config}", "--mesh", "tensr=2"], 2, "did you mean tensor?"),
        (["--config", "{config}", "--mesh", "data=2,data=4"], 2, "must set data once"),
        (
            ["--config", "{config}", "--mesh", "data=2", "--device", "h2000"],
            2,
            "--device must be one of a100-40, a100-80, h100, h200",
        ),
        (
            ["--config", "{config}", "--mesh", "data=2", "--model.num-heds", "4"],
            2,
            "did you mean --model.num-heads?",
        ),
        (
            ["--config", "{config}", "--mesh", "tensor=4", "--model.feed-forward-dim=26", *OPTIONS],
            1,
            "mesh.tensor must divide the dimensions they split: ",
        ),
        (["--config", "{config}", "--mesh", "data=9"], 1, "at most the 8 devices"),
    ],
)
def test_wrong_usage_is_one_line(
    tmp_path, monkeypatch, config_file, run_main, options, status, message
):
    monkeypatch.chdir(tmp_path)
    actual, _, errors = run_main("plan", *(each.format(config=config_file) for each in options))
    assert actual == status
    assert message in errors
    errors = errors.removeprefix("compiling for 4 simulated devices ...\n")
    assert errors.count("\n") == 1
