"""A tiny training whose second evaluation does not end: ``slow_trainer.py WORKDIR``."""

import signal
import sys
import time
from pathlib import Path

from tiny_training import make_tiny_task, run_tiny_training

if __name__ == "__main__":
    workdir = Path(sys.argv[1])
    # A shell lets what it runs in the background ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def give_scores():
        """Give one score, say that the second evaluation has begun, and wait."""
        yield 1.0
        (workdir / "evaluating").touch()
        time.sleep(600)

    task = make_tiny_task(workdir)
    run_tiny_training(task, workdir, scores=give_scores(), num_steps=9, eval_every=2)
