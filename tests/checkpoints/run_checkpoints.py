"""What test_checkpoint_processes.py runs in two processes of two devices each."""

import sys
from pathlib import Path

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from tiny_checkpoints import Streams, abstract, make_state, open_checkpointer

from flax_transformer.cli.distributed import initialize_distributed
from flax_transformer.parallel.mesh import MeshConfig, make_mesh
from flax_transformer.parallel.processes import fetch, is_first_process, place_whole, wait_for_all


def main(directory: Path) -> None:
    """Save two checkpoints, damage the later one, and resume."""
    initialize_distributed(start_timeout=60, heartbeat_timeout=60)
    mesh = make_mesh(MeshConfig(data=1, fsdp=4))

    def place(leaf: jax.Array) -> jax.Array:
        is_split = leaf.shape[-1:] == (16,)
        spec = (*[None] * (leaf.ndim - 1), "fsdp") if is_split else ()
        return place_whole(np.asarray(leaf), NamedSharding(mesh, PartitionSpec(*spec)))

    states = {step: jax.tree.map(place, make_state(step, width=16)) for step in (1, 2)}
    assert not states[1].params["embedding"].is_fully_addressable
    batches = Streams(jax.process_index())
    with open_checkpointer(directory) as checkpointer:
        for state in states.values():
            checkpointer.save(state, batches, metrics={"bleu": 1.0})
            checkpointer.retry_if_failed(state, batches, metrics={})
        checkpointer.finish(states[2], batches, metrics={})
        assert checkpointer.steps() == [1, 2]
    wait_for_all("saved")
    if is_first_process():
        (directory / "2" / "state" / "_METADATA").write_bytes(b"{")
    wait_for_all("damaged")
    with open_checkpointer(directory) as checkpointer:
        restored = checkpointer.restore_latest(like=abstract(states[1]), batches=batches)
        for left, right in zip(
            jax.tree.leaves(fetch(restored)), jax.tree.leaves(fetch(states[1])), strict=True
        ):
            assert left.dtype == right.dtype
            assert left.tobytes() == right.tobytes()
        number = jax.process_index()
        assert batches.position == {str(number): 100 + number}
        assert checkpointer.steps() == [1]
        checkpointer.save(states[2], batches, metrics={})
        checkpointer.finish(states[2], batches, metrics={})
        assert checkpointer.steps() == [1, 2]


if __name__ == "__main__":
    main(Path(sys.argv[1]))
