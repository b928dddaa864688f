"""``--distributed``: join the processes that a launcher has started on one or many hosts."""

import argparse
import contextlib
import importlib.util
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from flax_transformer.cli.command_parser import positive_int
from flax_transformer.errors import InputError
from flax_transformer.parallel.processes import wait_for_all

COORDINATOR = "JAX_COORDINATOR_ADDRESS"
NUM_PROCESSES = "JAX_NUM_PROCESSES"
PROCESS_ID = "JAX_PROCESS_ID"

# Where the variables of JAX are not set, those of Open MPI, SLURM and Kubernetes stand in.
_NUM_PROCESSES_NAMES = (NUM_PROCESSES, "OMPI_COMM_WORLD_SIZE", "SLURM_NTASKS")
_PROCESS_ID_NAMES = (PROCESS_ID, "OMPI_COMM_WORLD_RANK", "SLURM_PROCID", "JOB_COMPLETION_INDEX")

_START_TIMEOUT = 300
_HEARTBEAT_TIMEOUT = 100
_PARTING_TIMEOUT = 5


class Launch(NamedTuple):
    """What is known of the processes; None is for JAX to find out.

    Attributes:
        launcher: the launcher that JAX asks for what is None; None if nothing is.
        coordinator: ``host:port``, where process 0 listens.
        num_processes: number of processes on all hosts.
        process_id: this one's, from 0.
    """

    launcher: str | None
    coordinator: str | None
    num_processes: int | None
    process_id: int | None

    def __str__(self) -> str:
        """Describe it in one line."""
        by = f"coordinator {self.coordinator}" if self.coordinator else f"by {self.launcher}"
        if self.num_processes is None or self.process_id is None:
            return f"a process started {by}"
        return f"process {self.process_id} of {self.num_processes}, {by}"


def add_distributed_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--distributed`` and its timeouts."""
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="train with all processes that a launcher has started (see docs/distributed.md)",
    )
    parser.add_argument(
        "--start-timeout",
        type=positive_int,
        default=_START_TIMEOUT,
        metavar="SECONDS",
        help="with --distributed, end if not all processes have come (default: %(default)s)",
    )
    parser.add_argument(
        "--heartbeat-timeout",
        type=positive_int,
        default=_HEARTBEAT_TIMEOUT,
        metavar="SECONDS",
        help="with --distributed, end if a process has been silent (default: %(default)s)",
    )


@contextlib.contextmanager
def joined_processes(*, start_timeout: int, heartbeat_timeout: int) -> Iterator[None]:
    """Be one of several processes while it is entered; see initialize_distributed.

    A process that leaves it by an exception, whatever the others do, ends with that exception's
    message and status 1. JAX by itself would wait for them, and then abort.
    """
    initialize_distributed(start_timeout=start_timeout, heartbeat_timeout=heartbeat_timeout)
    try:
        yield
    except BaseException:
        # If all have failed alike, as with a wrong config, they part in good order before that.
        _start_timer(_PARTING_TIMEOUT, os._exit, 1)
        raise


def initialize_distributed(*, start_timeout: int, heartbeat_timeout: int) -> None:
    """Join the other processes; call this before anything touches a device.

    One line on standard error says what was found. If not all processes have come in time, this
    one ends with status 1. If one of them dies later, JAX ends all the others by SIGABRT.

    Args:
        start_timeout: seconds to wait for the others.
        heartbeat_timeout: seconds after which a process without a sign of life is dead.

    Raises:
        InputError: there is no launcher, or what it says is incomplete or contradicts itself.
    """
    launch = find_launch(os.environ)
    print(f"{launch}; waiting at most {start_timeout} s for all", file=sys.stderr, flush=True)
    # JAX's own handler of SIGTERM would swallow a signal that comes before the training loop's.
    jax.config.update("jax_enable_preemption_service", False)
    # After its timeout JAX aborts with a stack trace: that is only there as a backup.
    watchdog = _start_timer(start_timeout, _give_up, launch, start_timeout)
    try:
        jax.distributed.initialize(
            coordinator_address=launch.coordinator,
            num_processes=launch.num_processes,
            process_id=launch.process_id,
            # Even if all is given JAX looks for a launcher, to choose one device a process by it.
            cluster_detection_method="deactivate" if launch.launcher is None else None,
            initialization_timeout=start_timeout + 60,
            heartbeat_timeout_seconds=heartbeat_timeout,
            shutdown_timeout_seconds=heartbeat_timeout,
        )
    except (ValueError, RuntimeError, OSError) as error:
        raise InputError(f"--distributed must find its processes ({launch}): {error}") from error
    finally:
        watchdog.cancel()
    # The first meeting has a time limit of its own: before one process does something for all.
    wait_for_all("start")


def find_launch(environment: Mapping[str, str]) -> Launch:
    """Return what the environment says of the processes.

    Raises:
        InputError: there is no launcher, or what it says is incomplete or contradicts itself.

    >>> print(find_launch({COORDINATOR: "a:12", NUM_PROCESSES: "2", "JOB_COMPLETION_INDEX": "1"}))
    process 1 of 2, coordinator a:12
    """
    coordinator = environment.get(COORDINATOR)
    num_processes = _read_int(environment, _NUM_PROCESSES_NAMES)
    process_id = _read_int(environment, _PROCESS_ID_NAMES)
    is_explicit = any(name in environment for name in (COORDINATOR, NUM_PROCESSES, PROCESS_ID))
    launcher = None if is_explicit else _detect_launcher(environment)
    if launcher is not None:
        return Launch(launcher, None, None, None)
    if is_explicit:
        _check_complete(coordinator, num_processes, process_id)
    else:
        raise InputError(
            "--distributed must be started by a launcher, got none. Set "
            f"{COORDINATOR}, {NUM_PROCESSES} and {PROCESS_ID} for each process (an indexed "
            "Kubernetes job sets the last), or use SLURM's srun, Open MPI's mpirun or a Cloud TPU."
        )
    if process_id is not None and num_processes is not None:
        _check_range(num_processes, process_id)
    return Launch(launcher, coordinator, num_processes, process_id)


def _detect_launcher(environment: Mapping[str, str]) -> str | None:
    """Name the launcher that JAX can ask for all that it needs to know."""
    if "OMPI_MCA_orte_hnp_uri" in environment:
        return "Open MPI"
    if "SLURM_STEP_NODELIST" in environment:
        return "SLURM"
    if importlib.util.find_spec("libtpu") is not None:
        return "Cloud TPU"
    # JAX asks the cluster's API for the job, by a package that need not be there.
    has_package = importlib.util.find_spec("kubernetes") is not None
    return "Kubernetes" if "KUBERNETES_SERVICE_HOST" in environment and has_package else None


def _read_int(environment: Mapping[str, str], names: Sequence[str]) -> int | None:
    """Return the number in the first variable of ``names`` that is set."""
    name = next((name for name in names if name in environment), None)
    if name is None:
        return None
    try:
        return int(environment[name])
    except ValueError as error:
        raise InputError(f"{name} must be an integer, got {environment[name]!r}.") from error


def _check_complete(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
    values = {COORDINATOR: coordinator, NUM_PROCESSES: num_processes, PROCESS_ID: process_id}
    missing = [name for name, value in values.items() if value is None]
    if missing:
        raise InputError(
            f"{', '.join(values)} must all be set for --distributed, got no "
            f"{' and no '.join(missing)}."
        )
    host, _, port = str(coordinator).rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(f"{COORDINATOR} must be host:port, got {coordinator!r}.")


def _check_range(num_processes: int, process_id: int) -> None:
    if not 0 <= process_id < num_processes:
        raise InputError(
            f"{PROCESS_ID} must be from 0 to {NUM_PROCESSES} - 1, got process {process_id} of "
            f"{num_processes}."
        )


def _start_timer(seconds: float, call: Callable[..., Any], *arguments: object) -> threading.Timer:
    timer = threading.Timer(seconds, call, arguments)
    timer.daemon = True
    timer.start()
    return timer


def _give_up(launch: Launch, start_timeout: int) -> None:
    """End the process, whose main thread is within JAX and cannot be interrupted."""
    print(
        f"error: not all processes have come within {start_timeout} s ({launch}). See that all of "
        "them were started, and that each can reach the coordinator.",
        file=sys.stderr,
        flush=True,
    )
    os._exit(1)
