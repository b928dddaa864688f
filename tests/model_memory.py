"""Print how much memory loading and saving a model take, in MiB: run in a process of its own.

Usage: ``python model_memory.py DIRECTORY SAVED``. Pages of files that are mapped are not counted.
"""

import json
import re
import sys
import threading
import time
from pathlib import Path

import jax
import jax.numpy as jnp

from flax_transformer.interop.pretrained import load_pretrained, save_model, save_pretrained


def anonymous_memory() -> float:
    """Return the memory of this process that is of no file, in MiB."""
    found = re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


class Watch(threading.Thread):
    """Notes the most memory that this process took since :meth:`restart`."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.start_level = self.peak = anonymous_memory()

    def run(self) -> None:
        while True:
            self.peak = max(self.peak, anonymous_memory())
            time.sleep(0.002)

    def restart(self) -> None:
        self.start_level = self.peak = anonymous_memory()

    def grown(self) -> float:
        return self.peak - self.start_level


def main(directory: Path, saved: Path) -> None:
    jnp.zeros(3).block_until_ready()
    watch = Watch()
    watch.start()
    pretrained = load_pretrained(directory)
    jax.block_until_ready(pretrained.params)
    figures = {
        "parameters": sum(leaf.nbytes for leaf in jax.tree.leaves(pretrained.params)) / 2**20,
        "loading": watch.grown(),
    }
    watch.restart()
    save_model(saved / "ours", pretrained)
    figures["saving ours"] = watch.grown()
    watch.restart()
    save_pretrained(pretrained, saved / "public")
    figures["saving a public one"] = watch.grown()
    print(json.dumps(figures))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
