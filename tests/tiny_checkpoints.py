"""Checkpoints of a state of a few numbers, and the faults that may meet them."""

import contextlib
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import flax.struct
import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flax_transformer.checkpoints.checkpointer import Checkpointer
from flax_transformer.errors import InputError

OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))


@flax.struct.dataclass
class State:
    step: Any
    params: Any
    optimizer_state: Any
    dropout_key: Any


def make_state(step: int, *, width: int = 5, seed: int = 0) -> State:
    """Make the same bits in every process, whatever its compiler's options."""
    rng = np.random.default_rng(seed + step)
    params = {
        "embedding": jnp.asarray(rng.normal(size=(7, width)), jnp.float32),
        "layers_0": {"scale": jnp.asarray(rng.normal(size=width), jnp.bfloat16)},
    }
    return State(
        step=jnp.int32(step),
        params=params,
        optimizer_state=OPTIMIZER.init(params),
        dropout_key=jax.random.key_data(jax.random.key(seed + step)),
    )


def make_large_state(step: int) -> State:
    """A state of 1.2 MB that does not compress."""
    kernel = jax.random.normal(jax.random.key(step), (300_007,))
    return make_state(step).replace(params={"kernel": kernel}, optimizer_state=())


def make_batches(seed: int = 3) -> grain.DatasetIterator:
    return iter(grain.MapDataset.range(97).shuffle(seed=seed).repeat().to_iter_dataset())


class Streams(grain.DatasetIterator):
    """The position of a process that reads streams of these numbers, far from their beginning."""

    def __init__(self, *numbers: int, seed: str = "1") -> None:
        super().__init__()
        self.numbers = numbers
        self.seed = seed
        self.position: dict[str, int] = {}

    def __next__(self) -> int:
        return 0

    def get_state(self) -> dict[str, Any]:
        return {
            "position": {str(number): 100 + number for number in self.numbers},
            "stream": {"seed": self.seed},
        }

    def set_state(self, state: dict[str, Any]) -> None:
        if state["stream"] != {"seed": self.seed}:
            raise InputError(f"seed must be {state['stream']['seed']}, got {self.seed}.")
        self.position = {str(number): state["position"][str(number)] for number in self.numbers}


def abstract(tree: Any) -> Any:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), tree
    )


def open_checkpointer(
    directory: Path, keep_last: int = 9, keep_best: int = 1, save_attempts: int = 3
) -> Checkpointer:
    return Checkpointer(
        directory,
        keep_last=keep_last,
        keep_best=keep_best,
        best_metric="bleu",
        save_attempts=save_attempts,
        retry_pause=0.05,
    )


def save_steps(directory: Path, *steps: int) -> None:
    with open_checkpointer(directory) as checkpointer:
        for step in steps:
            checkpointer.save(make_state(step), make_batches(), metrics={})


def assert_same(actual: Any, expected: Any) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for left, right in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert left.dtype == right.dtype
        assert np.asarray(left).tobytes() == np.asarray(right).tobytes()


@contextlib.contextmanager
def small_disk(path: Path, size: str) -> Iterator[Path]:
    """A file system of its own, which only the superuser may mount."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(path)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
