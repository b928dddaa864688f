"""A contender's process: reads commands from standard input, and answers each by a line of JSON.

    steps K     run K training steps:    {"seconds": of a step, "loss": of the last step}
    products K  multiply two matrices:   {"seconds": of a product}
    report 1    what it took so far:     {"memory_bytes": ..., "num_parameters": ..., ...}

Steps alternate between the processes of all contenders this way, so that what else happens on the
machine hits all alike. The first step compiles.
"""

import json
import os
import resource
import sys
import time
from typing import Any, Protocol, TextIO

from contenders import Contender
from training_shapes import Shape


class Trainer(Protocol):
    """What a contender must be able to do."""

    def run_steps(self, count: int) -> float:
        """Run training steps to their end; return the loss of the last one, in nats a token."""

    def run_products(self, count: int) -> None:
        """Multiply two matrices of ``shape.product_size`` in the contender's precision."""

    def report(self) -> dict[str, Any]:
        """Return ``num_parameters``, ``version`` and ``device_memory_bytes`` (None on a CPU)."""


def main() -> None:
    """Make the contender of the command line and serve until standard input ends."""
    contender = Contender(*json.loads(sys.argv[1]))
    shape = Shape(**json.loads(sys.argv[2]))
    # Only replies may go where the parent reads them, whatever a library prints.
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    serve(make_trainer(contender, shape), replies)


def make_trainer(contender: Contender, shape: Shape) -> Trainer:
    """Import the contender's library, and only that, and set it up."""
    if contender.path is not None:
        from jax_peer import JaxPeer

        return JaxPeer(contender.path, contender.precision, shape)
    if contender.library == "ours":
        from ours import OurTrainer

        return OurTrainer(contender.precision, shape)
    from peers_torch import TorchTrainer

    return TorchTrainer(contender, shape)


def serve(trainer: Trainer, replies: TextIO) -> None:
    """Answer commands until there are no more."""
    for line in sys.stdin:
        command, count = line.split()
        start = time.perf_counter()
        reply: dict[str, Any]
        if command == "steps":
            reply = {"loss": trainer.run_steps(int(count))}
            reply["seconds"] = (time.perf_counter() - start) / int(count)
        elif command == "products":
            trainer.run_products(int(count))
            reply = {"seconds": (time.perf_counter() - start) / int(count)}
        else:
            kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            reply = {"memory_bytes": 1024 * kilobytes, **trainer.report()}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
