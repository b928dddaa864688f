"""Several processes of one training on this machine, each with simulated devices of its own."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from compile_fast import COMPILE_FAST

ROOT = Path(__file__).parents[1]


class Ended(NamedTuple):
    """How a process ended; a negative status is the signal that ended it."""

    status: int
    output: str
    errors: str


def start_group(
    *command: object, num_processes: int = 2, num_devices: int = 4
) -> list[subprocess.Popen[str]]:
    """Start ``python command ...`` once for each process, in the root of the repository."""
    coordinator = f"127.0.0.1:{find_free_port()}"
    return [
        start_process(
            *command,
            num_devices=num_devices,
            environment={
                "JAX_COORDINATOR_ADDRESS": coordinator,
                "JAX_NUM_PROCESSES": str(num_processes),
                "JAX_PROCESS_ID": str(process_id),
            },
        )
        for process_id in range(num_processes)
    ]


def start_process(
    *command: object, num_devices: int, environment: dict[str, str] | None = None
) -> subprocess.Popen[str]:
    """Start ``python command ...`` with simulated devices, in the root of the repository."""
    return subprocess.Popen(
        [sys.executable, *map(str, command)],
        cwd=ROOT,
        env=os.environ
        | {
            "PYTHONPATH": str(ROOT / "tests"),
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={num_devices} {COMPILE_FAST}",
        }
        | (environment or {}),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(*processes: subprocess.Popen[str], timeout: float = 600.0) -> list[Ended]:
    """Wait for all processes; those that are there after ``timeout`` seconds are killed."""

    def wait(process: subprocess.Popen[str]) -> Ended:
        try:
            output, errors = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            output, errors = process.communicate()
            errors += f"\nkilled after {timeout} s"
        return Ended(process.returncode, output, errors)

    with ThreadPoolExecutor(len(processes)) as pool:
        return list(pool.map(wait, processes))


def wait_until(condition: Callable[[], object], timeout: float = 300.0) -> None:
    """Wait until ``condition()`` is true.

    Raises:
        AssertionError: it is still false after ``timeout`` seconds.
    """
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {timeout} s"
        time.sleep(0.002)


def find_free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
