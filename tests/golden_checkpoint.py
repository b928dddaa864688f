"""The state in ``golden/checkpoint``; run this file to write it anew, with another format."""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import grain
import jax.numpy as jnp

from flax_transformer.checkpoints.checkpointer import Checkpointer

GOLDEN = Path(__file__).parent / "golden" / "checkpoint"
GOLDEN_STEP = 7


class GoldenState(NamedTuple):
    step: Any
    params: Any


def golden_state() -> GoldenState:
    params = {
        "kernel": jnp.arange(6, dtype=jnp.float32).reshape(2, 3) / 7,
        "scale": jnp.array([1.5, -2.25], jnp.bfloat16),
    }
    return GoldenState(jnp.int32(GOLDEN_STEP), params)


def golden_batches() -> grain.DatasetIterator:
    return iter(grain.MapDataset.range(11).shuffle(seed=5).repeat().to_iter_dataset())


def write_golden(directory: Path) -> None:
    """Write the state after four batches, as this version of the package does."""
    batches = golden_batches()
    for _ in range(4):
        next(batches)
    with Checkpointer(
        directory,
        keep_last=1,
        keep_best=0,
        best_metric="bleu",
        attachments={"config.json": "e30="},
    ) as checkpointer:
        checkpointer.save(golden_state(), batches, metrics={"bleu": 27.5})


if __name__ == "__main__":
    shutil.rmtree(GOLDEN, ignore_errors=True)
    with tempfile.TemporaryDirectory() as temporary:
        write_golden(Path(temporary))
        shutil.copytree(Path(temporary) / str(GOLDEN_STEP), GOLDEN / str(GOLDEN_STEP))
    print(f"wrote {GOLDEN}", file=sys.stderr)
