"""Kill a training again and again, resume it, and compare it with one that nobody disturbed.

By hand: ``python tests/kill_trainer.py --kills 25 --signal KILL``. Most signals come while a
checkpoint is being written. Every trainer is a process of its own, but a copy of one that has
imported everything already, so that it starts in two seconds instead of eight.
"""

import argparse
import contextlib
import itertools
import multiprocessing
import multiprocessing.context
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from compile_fast import COMPILE_FAST

CONFIG = """
import dataclasses
from pathlib import Path

from flax_transformer.parallel.mesh import MeshConfig
from tiny_experiment import make_tiny_experiment

def get_config():
    return dataclasses.replace(
        make_tiny_experiment(Path(__file__).parent), mesh=MeshConfig(data=1, fsdp=2)
    )
"""
OPTIONS = (
    "--pipeline.long-pairs=cut",
    "--training.log-examples",
    "--training.checkpoint-every=3",
    "--training.eval-every=48",
    "--training.log-every=1",
    "--evaluation.test-beam-size=1",
)
NUM_PAIRS = 24
SAVING = "*.orbax-checkpoint-tmp"
EXIT_INTERRUPTED = 75
TIMEOUT = 300.0


class Moment(NamedTuple):
    """When a signal is sent: ``delay`` seconds after an event.

    Attributes:
        event: ``start`` of the process, its first ``step``, or the beginning of a ``save``.
        count: which save of this process.
        delay: in seconds.
    """

    event: str
    count: int
    delay: float


class Kill(NamedTuple):
    """What a signal met: when it came, and whether a save was cut short by it."""

    moment: Moment
    cut_save: bool
    last_step: int


def choose_moments(numbers: Sequence[signal.Signals], rng: random.Random) -> list[Moment]:
    """Return moments at random, one for each signal, four of five of them while saving.

    The first two of SIGKILL are in the start of the process, and in its first save: then there is
    no checkpoint. Other signals come when training has begun.
    """
    moments = []
    for number in numbers:
        is_kill = number is signal.SIGKILL
        if rng.random() < 0.8:
            moments.append(Moment("save", rng.randint(1, 3), rng.uniform(0.0, 0.05)))
        elif is_kill:
            moments.append(Moment("start", 1, rng.uniform(0.0, 5.0)))
        else:
            moments.append(Moment("step", 1, rng.uniform(0.0, 0.3)))
    if numbers[0] is signal.SIGKILL:
        moments[:2] = [Moment("start", 1, rng.uniform(0.0, 2.0)), Moment("save", 1, 0.005)]
    return moments[: len(numbers)]


class Trainers:
    """Starts trainers of one config, each in a process of its own."""

    def __init__(self, directory: Path, num_steps: int) -> None:
        from tiny_experiment import write_corpus

        write_corpus(directory / "tiny")
        self._config = directory / "config.py"
        self._config.write_text(CONFIG)
        self._num_steps = num_steps
        self._log = directory / "log.txt"
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["flax_transformer.cli.train", "tiny_experiment"])

    def start(self, workdir: Path) -> multiprocessing.context.ForkServerProcess:
        """Train in ``workdir``, in the background."""
        options = (f"--config={self._config}", f"--workdir={workdir}", *OPTIONS)
        argv = ["train", *options, f"--training.num-steps={self._num_steps}"]
        process = self._context.Process(target=_run_trainer, args=(argv, self._log))
        process.start()
        return process

    def finish(self, workdir: Path) -> None:
        """Train to the end."""
        process = self.start(workdir)
        process.join(TIMEOUT)
        if process.exitcode != 0:
            raise RuntimeError(f"status {process.exitcode}:\n{self.tail()}")

    def tail(self) -> str:
        """Return the last of what the trainers printed."""
        return self._log.read_text()[-3000:]


def _run_trainer(argv: list[str], log: Path) -> None:
    """Be a trainer (in its process)."""
    with log.open("ab") as file:
        os.dup2(file.fileno(), sys.stdout.fileno())
        os.dup2(file.fileno(), sys.stderr.fileno())
    os.environ["XLA_FLAGS"] = f"--xla_force_host_platform_device_count=2 {COMPILE_FAST}"
    from flax_transformer.cli.main import main

    sys.exit(main(argv))


def kill_once(trainers: Trainers, workdir: Path, number: signal.Signals, moment: Moment) -> Kill:
    """Start a trainer, send it a signal at the moment, and wait for its end.

    Raises:
        RuntimeError: it ended earlier, or not as it should.
    """
    checkpoints, metrics = workdir / "checkpoints", workdir / "metrics.jsonl"
    saves_before, saves = _find_saves(checkpoints), set[tuple[str, int]]()
    num_lines = _count_lines(metrics)
    process = trainers.start(workdir)

    def wait_for(happened: Callable[[], bool]) -> None:
        end = time.monotonic() + TIMEOUT
        while not happened():
            if not process.is_alive() or time.monotonic() > end:
                raise RuntimeError(
                    f"no {moment} before status {process.exitcode}:\n{trainers.tail()}"
                )
            time.sleep(0.001)

    def count_saves() -> int:
        saves.update(_find_saves(checkpoints) - saves_before)
        return len(saves)

    if moment.event == "step":
        wait_for(lambda: _count_lines(metrics) not in (0, num_lines))
    if moment.event == "save":
        wait_for(lambda: count_saves() >= moment.count)
    time.sleep(moment.delay)
    os.kill(process.pid, number)
    process.join(TIMEOUT)
    expected = -signal.SIGKILL if number is signal.SIGKILL else EXIT_INTERRUPTED
    if process.exitcode != expected:
        raise RuntimeError(f"{moment}: status {process.exitcode}:\n{trainers.tail()}")
    cut = _find_saves(checkpoints) - saves_before
    return Kill(moment, bool(cut), _last_step(checkpoints))


def check_nothing_repeated(workdir: Path) -> None:
    """Check that what was trained is all in the last checkpoint."""
    from compare_runs import read_lines

    last_step = read_lines(workdir / "examples.jsonl")[-1]["step"]
    if last_step != _last_step(workdir / "checkpoints"):
        raise RuntimeError(f"step {last_step} is not saved")


def _find_saves(checkpoints: Path) -> set[tuple[str, int]]:
    """Return names and inodes of the directories of saves in flight, or cut short."""
    saves = set()
    for path in checkpoints.glob(SAVING):
        with contextlib.suppress(FileNotFoundError):  # it has just been completed
            saves.add((path.name, path.stat().st_ino))
    return saves


def _last_step(checkpoints: Path) -> int:
    names = [path.name for path in checkpoints.glob("*")]
    return max((int(name) for name in names if name.isdecimal()), default=0)


def _count_lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def run(directory: Path, numbers: Sequence[signal.Signals], *, seed: int) -> list[str]:
    """Kill and resume a run, finish it, and name what differs from an unbroken one."""
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(directory / "compiled"))
    # Not that of the tests: no trainer shall compile again what another has compiled.
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
    begin = time.monotonic()
    trainers = Trainers(directory, num_steps=21 + 7 * len(numbers))
    trainers.finish(directory / "unbroken")
    print(f"unbroken run: {time.monotonic() - begin:.0f} s", flush=True)
    broken = directory / "broken"
    kills = []
    moments = choose_moments(numbers, random.Random(seed))
    for number, moment in zip(numbers, moments, strict=True):
        kill = kill_once(trainers, broken, number, moment)
        kills.append(kill)
        if number is not signal.SIGKILL:
            check_nothing_repeated(broken)
        when = f"{moment.delay * 1000:5.0f} ms after {moment.event} {moment.count}"
        what = f"step {kill.last_step} is complete{', a save was cut short' * kill.cut_save}"
        print(f"{len(kills):3} {number.name}: {when}; {what}", flush=True)
    trainers.finish(broken)

    # Here: it imports JAX, which reads the environment.
    from compare_runs import find_differences, find_uneven_example

    num_cut = sum(kill.cut_save for kill in kills)
    print(f"{len(kills)} signals, {num_cut} of them cut a save short")
    print(f"{time.monotonic() - begin:.0f} s")
    differences = find_differences(broken, directory / "unbroken")
    if uneven := find_uneven_example(broken, NUM_PAIRS):
        differences.append(uneven)
    return differences


def main() -> int:
    """Do as the command line says; the status is 1 if the runs differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument(
        "--signal", nargs="+", choices=("KILL", "TERM", "INT"), default=["KILL"], help="in turn"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--directory", type=Path, help="is kept; made if missing")
    arguments = parser.parse_args()
    with contextlib.ExitStack() as stack:
        directory = arguments.directory
        if directory is None:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        directory.mkdir(parents=True, exist_ok=True)
        names = itertools.islice(itertools.cycle(arguments.signal), arguments.kills)
        numbers = [signal.Signals[f"SIG{name}"] for name in names]
        differences = run(directory, numbers, seed=arguments.seed)
    print(f"different: {', '.join(differences)}" if differences else "equal to the unbroken run")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
