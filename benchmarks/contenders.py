"""Who takes part in a comparison of training steps, each in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

Library: TypeAlias = Literal["ours", "marian", "torch", "jax"]
Precision: TypeAlias = Literal["float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")


class Contender(NamedTuple):
    """A library in one of its modes.

    Attributes:
        library: ours; `transformers`' Marian; `torch.nn.Transformer`; a JAX peer from a file.
        precision: of the operands of matrix products.
        is_compiled: by `torch.compile`; what JAX runs always is.
        path: of a JAX peer's file, see :mod:`jax_peer`.
    """

    library: Library
    precision: Precision
    is_compiled: bool = True
    path: str | None = None

    @property
    def name(self) -> str:
        """A short name, unique in a run."""
        if self.path is not None:
            return f"{Path(self.path).stem}-{self.precision}"
        if self.library == "ours":
            return f"ours-{self.precision}"
        return f"{self.library}-{'compiled' if self.is_compiled else 'eager'}-{self.precision}"


TORCH_PEERS: Mapping[str, Contender] = {
    peer.name: peer
    for library in ("marian", "torch")
    for is_compiled in (False, True)
    for precision in PRECISIONS
    for peer in [Contender(library, precision, is_compiled)]
}


class WorkerError(RuntimeError):
    """A contender's process has ended."""


class Worker:
    """The process of a contender, which waits for commands; see :mod:`worker`."""

    def __init__(self, contender: Contender, shape_json: str, environment: Mapping[str, str]):
        self.contender = contender
        script = Path(__file__).with_name("worker.py")
        self._process = subprocess.Popen(
            [sys.executable, str(script), json.dumps(contender), shape_json],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env={**os.environ, **environment},
        )

    def ask(self, command: str, count: int = 1) -> dict[str, Any]:
        """Send a command and return the reply.

        Raises:
            WorkerError: the process has ended.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(f"{command} {count}\n")
            reply = self._process.stdout.readline()
        except BrokenPipeError:
            reply = ""
        if not reply:
            status = self._process.wait()
            raise WorkerError(f"{self.contender.name} ended with status {status}")
        return json.loads(reply)

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
