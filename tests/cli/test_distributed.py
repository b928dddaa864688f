import functools
import json
import signal
from pathlib import Path

import numpy as np
import pytest
from process_group import finish, start_group, start_process, wait_until
from safetensors.numpy import load_file
from tiny_experiment import write_corpus

from flax_transformer.checkpoints.directory_lock import lock_directory
from flax_transformer.checkpoints.reader import list_steps
from flax_transformer.cli.distributed import find_launch
from flax_transformer.cli.main import main
from flax_transformer.errors import InputError

CONFIG = """
from pathlib import Path
from tiny_experiment import make_tiny_experiment

def get_config():
    return make_tiny_experiment(Path(__file__).parent)
"""
OPTIONS = (
    "--tokenizer.vocab-size=280",  # 281 cannot be split over two devices
    "--training.num-steps=20",  # later the rounding of Adam's first steps has grown
    "--training.eval-every=1000",
    "--training.checkpoint-every=1000",
    "--training.log-every=1",
    "--training.average-last=1",
    "--evaluation.test-beam-size=1",
)
MESH = ("--mesh.data=2", "--mesh.fsdp=2", "--mesh.tensor=2")
TWO_STREAMS = ("--pipeline.num-streams=2",)


@pytest.fixture(scope="module")
def config_file(tmp_path_factory):
    directory = tmp_path_factory.mktemp("experiment")
    write_corpus(directory / "tiny")
    (directory / "config.py").write_text(CONFIG)
    return directory / "config.py"


@pytest.fixture(scope="module")
def train_alone(config_file, tmp_path_factory):
    """Return a function that trains in this process, which has eight simulated devices."""

    @functools.cache
    def train_alone(*options):
        workdir = tmp_path_factory.mktemp("one") / "run"
        argv = ("train", "--config", config_file, "--workdir", workdir, *OPTIONS, *options)
        assert main([str(argument) for argument in argv]) == 0
        return workdir

    return train_alone


@pytest.fixture
def command(config_file):
    """Return a function that makes the command of a training in a process of its own."""

    def command(workdir, *options):
        files = ("--config", config_file, "--workdir", workdir)
        return ("train.py", "--default-allocator", *files, *OPTIONS, *options)

    return command


def wait_for_step(workdir, processes):
    """Wait until one more step than before has been logged."""
    path = workdir / "metrics.jsonl"
    before = len(read_losses(workdir)) if path.exists() else 0

    def is_there():
        assert all(process.poll() is None for process in processes), finish(*processes)
        return path.exists() and len(read_losses(workdir)) > before

    wait_until(is_there)


def read_losses(workdir):
    lines = (workdir / "metrics.jsonl").read_text().split("\n")[:-1]
    return [entry["loss"] for entry in map(json.loads, lines) if "loss" in entry]


def assert_same_run(actual: Path, expected: Path) -> None:
    losses = read_losses(actual)
    np.testing.assert_allclose(losses, read_losses(expected), rtol=1e-5)
    params, others = (load_file(run / "model" / "model.safetensors") for run in (actual, expected))
    assert params.keys() == others.keys()
    for name, param in params.items():
        np.testing.assert_allclose(param, others[name], rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path, command, train_alone):
    options = (*TWO_STREAMS, *MESH)
    ended = finish(*start_group(*command(tmp_path, "--distributed", *options)))
    assert [process.status for process in ended] == [0, 0], ended
    alone = train_alone(*options)
    assert_same_run(tmp_path, alone)
    # What is written once is written by one process.
    assert ["24 train, 6 dev" in process.output for process in ended] == [True, False]
    results = [(workdir / "results.json").read_text() for workdir in (tmp_path, alone)]
    assert results[0] == results[1]


@pytest.mark.slow
def test_a_run_passes_between_two_processes_and_one(tmp_path, command, train_alone):
    """Each is stopped by a signal, to one process only, and the other kind goes on."""
    # So many steps that a signal comes before the last one, and a rate at which rounding
    # does not grow in them.
    options = (*MESH, "--training.num-steps=60", "--optimizer.learning-rate=0.001")
    argv = command(tmp_path, *options)
    first = start_group(*argv, "--distributed")
    wait_for_step(tmp_path, first)
    first[1].send_signal(signal.SIGTERM)
    ended = finish(*first)
    assert [process.status for process in ended] == [75, 75], ended
    (step,) = list_steps(tmp_path / "checkpoints")
    assert f"a signal to another process: saved step {step}\n" in ended[0].output

    second = start_process(*argv, num_devices=8)
    wait_for_step(tmp_path, [second])
    second.send_signal(signal.SIGTERM)
    (alone,) = finish(second)
    assert alone.status == 75, alone
    assert f"resuming after step {step} of 60" in alone.output
    step = list_steps(tmp_path / "checkpoints")[-1]

    ended = finish(*start_group(*argv, "--distributed"))
    assert [process.status for process in ended] == [0, 0], ended
    assert f"resuming after step {step} of 60" in ended[0].output
    assert len(read_losses(tmp_path)) == 60
    assert_same_run(tmp_path, train_alone(*options))


@pytest.mark.slow
def test_the_death_of_a_process_ends_the_others(tmp_path, command):
    survivor, victim = start_group(
        *command(tmp_path, "--distributed", "--heartbeat-timeout=10", "--training.num-steps=100000")
    )
    wait_for_step(tmp_path, [survivor, victim])
    victim.kill()
    (ended,) = finish(survivor)
    finish(victim)
    assert ended.status == -signal.SIGABRT
    assert "another task died" in ended.errors


@pytest.mark.slow
def test_the_error_of_a_process_is_its_own(tmp_path, command):
    with lock_directory(tmp_path):
        argv = command(tmp_path, "--distributed", "--heartbeat-timeout=10")
        ended = finish(*start_group(*argv))
    assert [process.status for process in ended] == [1, -signal.SIGABRT], ended
    assert "error: " in ended[0].errors.splitlines()[-1]
    assert "is in use by process" in ended[0].errors.splitlines()[-1]


@pytest.mark.slow
def test_a_process_that_never_comes_ends_the_others(tmp_path, command):
    argv = command(tmp_path, "--distributed", "--start-timeout=2")
    processes = start_group(*argv, num_processes=3, num_devices=1)
    processes[1].kill()
    for ended in finish(*processes)[::2]:
        assert ended.status == 1, ended
        last_line = ended.errors.splitlines()[-1]
        assert "error: not all processes have come within 2 s (process " in last_line
    assert not any(tmp_path.iterdir())


def test_distributed_without_a_launcher_is_one_line(tmp_path, config_file, run_main, monkeypatch):
    for name in ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"):
        monkeypatch.delenv(name, raising=False)
    status, _, errors = run_main(
        "train", "--config", config_file, "--workdir", tmp_path / "run", "--distributed"
    )
    assert status == 1
    assert "error: --distributed must be started by a launcher, got none. Set JAX_COO" in errors
    assert errors.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (
            {
                "JAX_COORDINATOR_ADDRESS": "[::1]:12",
                "JAX_NUM_PROCESSES": "4",
                "JAX_PROCESS_ID": "3",
                "SLURM_PROCID": "0",
            },
            (None, "[::1]:12", 4, 3),
        ),
        (
            {
                "JAX_COORDINATOR_ADDRESS": "job-0.svc:12",
                "JAX_NUM_PROCESSES": "2",
                "JOB_COMPLETION_INDEX": "1",
            },
            (None, "job-0.svc:12", 2, 1),
        ),
        (
            {
                "JAX_COORDINATOR_ADDRESS": "host0:12",
                "OMPI_COMM_WORLD_SIZE": "2",
                "OMPI_COMM_WORLD_RANK": "0",
            },
            (None, "host0:12", 2, 0),
        ),
        (
            {
                "SLURM_JOB_ID": "7",
                "SLURM_STEP_NODELIST": "node[1-2]",
                "SLURM_NTASKS": "2",
                "SLURM_PROCID": "1",
                "SLURM_LOCALID": "0",
            },
            ("SLURM", None, None, None),
        ),
        (
            {
                "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911",
                "OMPI_COMM_WORLD_SIZE": "8",
                "OMPI_COMM_WORLD_RANK": "5",
            },
            ("Open MPI", None, None, None),
        ),
    ],
)
def test_launchers_are_found(environment, expected):
    assert find_launch(environment) == expected


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"SLURM_NTASKS": "2", "SLURM_PROCID": "0"}, "started by a launcher, got none"),
        ({"JAX_COORDINATOR_ADDRESS": "a:1", "JAX_PROCESS_ID": "0"}, "got no JAX_NUM_PROCESSES"),
        ({"JAX_NUM_PROCESSES": "2"}, "got no JAX_COORDINATOR_ADDRESS and no JAX_PROCESS_ID"),
        (
            {
                "JAX_COORDINATOR_ADDRESS": "a:1",
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": "2",
            },
            "must be from 0 to JAX_NUM_PROCESSES - 1, got process 2 of 2",
        ),
        ({"JAX_PROCESS_ID": "first"}, "JAX_PROCESS_ID must be an integer, got 'first'"),
        (
            {
                "JAX_COORDINATOR_ADDRESS": "host0",
                "JAX_NUM_PROCESSES": "2",
                "JAX_PROCESS_ID": "0",
            },
            "JAX_COORDINATOR_ADDRESS must be host:port, got 'host0'",
        ),
    ],
)
def test_a_launch_that_cannot_work_is_refused(environment, message):
    with pytest.raises(InputError, match=message):
        find_launch(environment)
