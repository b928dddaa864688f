"""A tiny training whose second evaluation does not end: ``slow_trainer.py WORKDIR``.

The file ``evaluating`` says that it has begun, ``asked`` that a signal has been taken note of.
"""

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
        """Give one score, say how far the second evaluation is, and wait."""
        yield 1.0
        handler = signal.getsignal(signal.SIGTERM)
        (workdir / "evaluating").touch()
        while signal.getsignal(signal.SIGTERM) == handler:
            time.sleep(0.01)
        (workdir / "asked").touch()
        time.sleep(600)

    task = make_tiny_task(workdir)
    run_tiny_training(task, workdir, scores=give_scores(), num_steps=9, eval_every=2)
