"""Whether two runs have come to the same, bit for bit, and have seen the same examples."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from flax_transformer.checkpoints.reader import list_steps


def find_differences(broken: Path, unbroken: Path) -> list[str]:
    """Name what differs between two work directories; what only tells the time may differ."""
    parts = {
        "steps of the checkpoints": lambda run: list_steps(run / "checkpoints"),
        "state": lambda run: _read_state(_last_checkpoint(run)),
        "position in the data": lambda run: _read_position(_last_checkpoint(run)),
        "stored scores": lambda run: _read_json(_last_checkpoint(run) / "scores" / "metadata"),
        "model": lambda run: (run / "model" / "model.safetensors").read_bytes(),
        "log": read_log,
        "examples": lambda run: (run / "examples.jsonl").read_bytes(),
        "results": lambda run: _read_json(run / "results.json"),
    }
    return [name for name, read in parts.items() if read(broken) != read(unbroken)]


def find_uneven_example(workdir: Path, num_pairs: int) -> str | None:
    """Check that each epoch has every pair once: at no step do counts of pairs differ by two.

    Returns:
        None, or what is wrong at the first step where something is.
    """
    lines = read_lines(workdir / "examples.jsonl")
    if [line["step"] for line in lines] != list(range(1, len(lines) + 1)):
        return "the steps are not 1, 2, 3, ..."
    counts = Counter(dict.fromkeys(range(num_pairs), 0))
    for line in lines:
        counts.update(line["pairs"])
        if max(counts.values()) - min(counts.values()) > 1:
            return f"step {line['step']}: {counts.most_common(1)} against {min(counts.values())}"
    return None


def read_log(workdir: Path) -> list[dict[str, Any]]:
    """Return the lines of the metrics, without what depends on the clock."""
    return [
        {name: value for name, value in line.items() if name != "tokens_per_second"}
        for line in read_lines(workdir / "metrics.jsonl")
    ]


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a file of JSON lines; none if it is not there."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _last_checkpoint(workdir: Path) -> Path:
    return workdir / "checkpoints" / str(list_steps(workdir / "checkpoints")[-1])


def _read_state(checkpoint: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Return type, shape and bytes of every array of the state."""
    metadata = ocp.PyTreeCheckpointHandler().metadata(epath.Path(checkpoint / "state")).tree
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), metadata)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        arguments = ocp.args.PyTreeRestore(restore_args=as_numpy)
        state = reader.restore(checkpoint / "state", arguments)
    return {
        jax.tree_util.keystr(path): (str(leaf.dtype), leaf.shape, leaf.tobytes())
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def _read_position(checkpoint: Path) -> list[Any]:
    return [_read_json(path) for path in sorted((checkpoint / "batches").glob("process_*.json"))]


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text())
