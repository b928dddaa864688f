"""Compare a training step of this project with the same step in other libraries.

    python benchmarks/training.py [--shape small|base|packed|big] [--steps N] [--peers NAME ...]

A step is forward and backward pass, clipping by the global norm, and Adam. Each contender has a
process of its own, and all have the same batches, threads and allocator settings. They take turns,
step by step, so that other work on the machine hits all alike; each round also times a product of
two matrices in each, which tells what the machine could do.
"""

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import os
import sys
import time
import typing
from collections.abc import Iterator

from contenders import PRECISIONS, TORCH_PEERS, Contender, Worker, WorkerError
from flax_transformer.cli.allocator import OPT_OUT, SETTINGS, TUNABLES
from training_report import Measurement, format_table, to_json
from training_shapes import SHAPES, Device, Remat, Shape

QUIET_LOAD = 0.5
PAUSE_SECONDS = 0.05
"""Before each turn: threads of the last contender may still spin for work."""


def main() -> None:
    """Run the comparison of the command line and print its table."""
    arguments = parse_arguments()
    changes = {
        name: getattr(arguments, option)
        for option, name in (
            ("rows", "num_rows"),
            ("device", "device"),
            ("remat", "remat"),
            ("vocab_chunks", "vocab_chunks"),
        )
        if getattr(arguments, option) is not None
    }
    shape = dataclasses.replace(SHAPES[arguments.shape], **changes)
    contenders = choose_contenders(shape, arguments.peers)
    contenders += [Contender("jax", precision, path=path) for path, precision in arguments.jax_peer]
    environment = make_environment(tune_allocator=not arguments.default_allocator)
    load = os.getloadavg()[0]
    if load > QUIET_LOAD:
        say(f"the machine is busy (load {load:.1f}): ratios to PyTorch will flatter us, see README")
    measurements = compare(contenders, shape, arguments.steps, environment)
    if not measurements:
        raise SystemExit("training.py: no contender could run")
    figures = to_json(arguments.shape, shape, measurements, load)
    print(json.dumps(figures, indent=2) if arguments.json else format_table(figures), flush=True)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Compare training steps.")
    parser.add_argument("--shape", choices=SHAPES, default="small", help="model and batch")
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="turns of each")
    parser.add_argument(
        "--peers",
        nargs="*",
        choices=TORCH_PEERS,
        metavar="NAME",
        help=f"peers in PyTorch, none or some of {', '.join(TORCH_PEERS)}; default: all, and of "
        "those compiled in bfloat16 for a shape with states in bfloat16",
    )
    parser.add_argument(
        "--jax-peer",
        nargs=2,
        action="append",
        default=[],
        metavar=("PATH", "PRECISION"),
        help="a peer in JAX: a file with a function make_step, see jax_peer.py",
    )
    parser.add_argument("--rows", type=int, metavar="N", help="rows of a batch")
    parser.add_argument("--device", choices=typing.get_args(Device))
    parser.add_argument("--remat", choices=typing.get_args(Remat), help="ours")
    parser.add_argument("--vocab-chunks", type=int, metavar="N", help="ours")
    parser.add_argument(OPT_OUT, action="store_true", help=f"do not set {TUNABLES}={SETTINGS}")
    parser.add_argument("--json", action="store_true", help="print JSON in place of the table")
    arguments = parser.parse_args()
    for name in ("steps", "rows", "vocab_chunks"):
        if getattr(arguments, name) is not None and getattr(arguments, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1")
    for _, precision in arguments.jax_peer:
        if precision not in PRECISIONS:
            parser.error(f"the precision of --jax-peer must be one of {', '.join(PRECISIONS)}")
    return arguments


def choose_contenders(shape: Shape, peers: list[str] | None) -> list[Contender]:
    """Return ours and the PyTorch peers; ours alone, with a remark, where PyTorch is missing."""
    precisions = PRECISIONS[1:] if shape.narrow_states else PRECISIONS
    ours = [Contender("ours", precision) for precision in precisions]
    if peers is None:
        chosen = [
            peer
            for peer in TORCH_PEERS.values()
            if not shape.narrow_states or (peer.is_compiled and peer.precision == "bfloat16")
        ]
    else:
        chosen = [TORCH_PEERS[name] for name in dict.fromkeys(peers)]
    if chosen and not all(map(importlib.util.find_spec, ("torch", "transformers"))):
        say('no peers without PyTorch and transformers: pip install -e ".[parity]"')
        return ours
    return ours + chosen


def make_environment(*, tune_allocator: bool) -> dict[str, str]:
    """Return what is set for every contender's process beside the environment of this one."""
    environment = {
        # All compile from nothing, and share a GPU.
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1",
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    if tune_allocator:
        environment[TUNABLES] = SETTINGS
    return environment


def compare(
    contenders: list[Contender], shape: Shape, num_turns: int, environment: dict[str, str]
) -> list[Measurement]:
    """Start the contenders one after the other and let them take turns.

    A contender whose process ends is named on standard error and left out.
    """
    shape_json = json.dumps(dataclasses.asdict(shape))
    turns: list[tuple[Worker, Measurement]] = []
    with contextlib.ExitStack() as stack:
        for contender in contenders:
            say(f"{contender.name}: start and first step")
            started = time.perf_counter()
            worker = Worker(contender, shape_json, environment)
            stack.callback(worker.close)
            measurement = Measurement(contender)
            turns.append((worker, measurement))
            with leave_out_if_dead(measurement):
                first = worker.ask("steps")
                measurement.start_seconds = time.perf_counter() - started
                measurement.first_step_seconds = first["seconds"]
                measurement.first_loss = first["loss"]
                # The first product compiles, too.
                worker.ask("products")
                worker.ask("steps", shape.steps_per_turn)
        for turn in range(num_turns):
            say(f"turn {turn + 1} of {num_turns}")
            # To and fro, so that nobody always follows the same contender.
            for worker, measurement in turns if turn % 2 == 0 else reversed(turns):
                if not measurement.is_dead:
                    with leave_out_if_dead(measurement):
                        take_turn(worker, measurement, shape)
        for worker, measurement in turns:
            if not measurement.is_dead:
                with leave_out_if_dead(measurement):
                    measurement.report = worker.ask("report")
    return [measurement for _, measurement in turns if not measurement.is_dead]


def take_turn(worker: Worker, measurement: Measurement, shape: Shape) -> None:
    """Time the steps of one turn, and a product of matrices."""
    time.sleep(PAUSE_SECONDS)
    reply = worker.ask("steps", shape.steps_per_turn)
    measurement.step_seconds.append(reply["seconds"])
    measurement.last_loss = reply["loss"]
    product = worker.ask("products", shape.steps_per_turn)
    measurement.product_seconds.append(product["seconds"])


@contextlib.contextmanager
def leave_out_if_dead(measurement: Measurement) -> Iterator[None]:
    """Note that a contender's process has ended, and go on."""
    try:
        yield
    except WorkerError as error:
        measurement.is_dead = True
        say(f"left out: {error}")


def say(line: str) -> None:
    """Tell of the progress on standard error."""
    print(f"training.py: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
