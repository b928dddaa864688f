import json
import os
import subprocess
import sys
from pathlib import Path

import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tiny_checkpoints import (
    State,
    Streams,
    abstract,
    assert_same,
    make_batches,
    make_state,
    open_checkpointer,
    save_steps,
)

from flax_transformer.checkpoints import reader
from flax_transformer.checkpoints.data_position import merge_positions
from flax_transformer.checkpoints.manifest import MANIFEST_NAME, find_damage, write_manifest
from flax_transformer.checkpoints.reader import DamagedCheckpointError
from flax_transformer.errors import InputError


def test_restores_bits_and_data_position(tmp_path: Path) -> None:
    state, batches = make_state(11), make_batches()
    for _ in range(4):
        next(batches)
    with open_checkpointer(tmp_path) as checkpointer:
        checkpointer.save(state, batches, metrics={"bleu": 3.5})
        following = [next(batches) for _ in range(3)]  # while the save is in flight
        fresh = make_batches()
        restored = checkpointer.restore(11, like=abstract(state), batches=fresh)
        assert checkpointer.latest_step() == 11
        assert checkpointer.metrics(11) == {"bleu": 3.5}
    assert_same(restored, state)
    assert [next(fresh) for _ in range(3)] == following


def test_donated_buffers_do_not_reach_the_save_in_flight(tmp_path: Path) -> None:
    params = {"kernel": jnp.arange(3_000_017, dtype=jnp.float32)}
    state = State(jnp.int32(1), params, (), jnp.zeros(2, jnp.uint32))
    expected = np.array(params["kernel"])
    overwrite = jax.jit(
        lambda tree: jax.tree.map(lambda leaf: leaf * 0 - 1, tree), donate_argnums=0
    )
    with open_checkpointer(tmp_path) as checkpointer:
        checkpointer.save(state, make_batches(), metrics={})
        like = abstract(state)
        jax.block_until_ready(overwrite(params))
        restored = checkpointer.restore(1, like=like, batches=make_batches())
    np.testing.assert_array_equal(restored.params["kernel"], expected)


def test_parameters_alone(tmp_path: Path) -> None:
    state = make_state(2)
    save_steps(tmp_path, 2)
    params = reader.restore_parameters(tmp_path / "2", like=abstract(state.params))
    assert_same(params, state.params)
    shapes = jax.eval_shape(lambda: state.params)
    on_host = reader.restore_parameters(tmp_path / "2", like=shapes)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(on_host))
    assert_same(on_host, state.params)


def test_a_relative_directory_restores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_steps(tmp_path / "run", 2)
    monkeypatch.chdir(tmp_path)
    state = make_state(2)
    params = reader.restore_parameters(Path("run/2"), like=state.params)
    assert_same(params, state.params)
    restored = reader.restore_state(Path("run/2"), like=make_state(0), batches=make_batches())
    assert_same(restored, state)


def test_a_renamed_directory_restores(tmp_path: Path) -> None:
    save_steps(tmp_path / "old", 2)
    (tmp_path / "old").rename(tmp_path / "new")
    with open_checkpointer(tmp_path / "new") as checkpointer:
        restored = checkpointer.restore(2, like=make_state(2), batches=make_batches())
    assert_same(restored, make_state(2))


def test_saving_a_step_twice_keeps_the_first(tmp_path: Path) -> None:
    with open_checkpointer(tmp_path) as checkpointer:
        checkpointer.save(make_state(4), make_batches(), metrics={"bleu": 1.0})
        checkpointer.save(make_state(4, seed=9), make_batches(), metrics={"bleu": 2.0})
        assert checkpointer.metrics(4) == {"bleu": 1.0}
        restored = checkpointer.restore(4, like=make_state(4), batches=make_batches())
        with pytest.raises(InputError, match=r"step 3 must come after the steps in .* before 4"):
            checkpointer.save(make_state(3), make_batches(), metrics={})
    assert_same(restored, make_state(4))


def test_no_checkpoint(tmp_path: Path) -> None:
    with open_checkpointer(tmp_path) as checkpointer:
        assert checkpointer.steps() == []
        assert checkpointer.latest_step() is None
        assert checkpointer.restore_latest(like=make_state(0), batches=make_batches()) is None
        with pytest.raises(InputError, match=r"checkpoint .*/5 does not exist; steps there: none"):
            checkpointer.restore(5, like=make_state(0), batches=make_batches())
    with pytest.raises(InputError, match="keep_last must be at least 1, got 0"):
        open_checkpointer(tmp_path, keep_last=0)


def test_another_model_is_refused_with_the_paths(tmp_path: Path) -> None:
    save_steps(tmp_path, 1)
    with open_checkpointer(tmp_path) as checkpointer:
        for restore in (
            lambda like: checkpointer.restore(1, like=like, batches=make_batches()),
            lambda like: checkpointer.restore_latest(like=like, batches=make_batches()),
            lambda like: reader.restore_parameters(tmp_path / "1", like=like.params),
        ):
            with pytest.raises(
                InputError,
                match=r"params/embedding is float32\(7, 5\) instead of float32\(7, 6\).*Use the",
            ) as caught:
                restore(make_state(0, width=6))
            assert not isinstance(caught.value, DamagedCheckpointError)
            assert "\n" not in str(caught.value)
        state = make_state(0)
        fewer = state.replace(params={"embedding": state.params["embedding"]})
        with pytest.raises(InputError, match="params/layers_0/scale is unexpected"):
            checkpointer.restore(1, like=fewer, batches=make_batches())
        other_optimizer = state.replace(optimizer_state=optax.sgd(0.1, 0.9).init(state.params))
        with pytest.raises(InputError, match="optimizer_state/0/trace/embedding is missing"):
            checkpointer.restore(1, like=other_optimizer, batches=make_batches())
        assert checkpointer.steps() == [1]


def test_another_pipeline_is_refused(tmp_path: Path) -> None:
    save_steps(tmp_path, 1)
    other = iter(make_window_shuffled())
    with (
        open_checkpointer(tmp_path) as checkpointer,
        pytest.raises(InputError, match="holds a position in other data") as caught,
    ):
        checkpointer.restore(1, like=make_state(0), batches=other)
    assert not isinstance(caught.value, DamagedCheckpointError)


def make_window_shuffled() -> grain.IterDataset:
    dataset = grain.MapDataset.range(97).to_iter_dataset()
    return grain.experimental.WindowShuffleIterDataset(dataset, window_size=5, seed=1)


def save_positions(directory: Path, *processes: Streams) -> Path:
    """A checkpoint that holds the positions of several processes."""
    with open_checkpointer(directory) as checkpointer:
        checkpointer.save(make_state(1), processes[0], metrics={})
    step_directory = directory / "1"
    (step_directory / "batches" / "process_0-of-1.json").unlink()
    for index, batches in enumerate(processes):
        name = f"process_{index}-of-{len(processes)}.json"
        (step_directory / "batches" / name).write_text(json.dumps(batches.get_state()))
    write_manifest(step_directory)
    return step_directory


@pytest.mark.parametrize("readers", [(0, 1, 2, 3), (2,), (3, 1)])
@pytest.mark.parametrize("writers", [[(0, 1, 2, 3)], [(0, 1), (2, 3)], [(0,), (1,), (2,), (3,)]])
def test_the_number_of_processes_may_change(
    tmp_path: Path, writers: list[tuple[int, ...]], readers: tuple[int, ...]
) -> None:
    step_directory = save_positions(tmp_path, *(Streams(*numbers) for numbers in writers))
    batches = Streams(*readers)
    reader.restore_state(step_directory, like=make_state(0), batches=batches)
    assert batches.position == {str(number): 100 + number for number in readers}


def test_positions_in_different_data_are_refused(tmp_path: Path) -> None:
    directory = save_positions(tmp_path / "seeds", Streams(0), Streams(1, seed="2"))
    with pytest.raises(InputError, match=r"checkpoint .*/1: all processes must have read the same"):
        reader.restore_state(directory, like=make_state(0), batches=Streams(0))
    directory = save_positions(tmp_path / "seed", Streams(0, seed="2"))
    with pytest.raises(InputError, match=r"checkpoint .*/1: seed must be 2, got 1\."):
        reader.restore_state(directory, like=make_state(0), batches=Streams(0))
    with pytest.raises(InputError, match="must be by stream"):
        merge_positions([{"next_index": 3}, {"next_index": 4}])


def test_the_data_can_be_left_where_it_is(tmp_path: Path) -> None:
    step_directory = save_positions(tmp_path, Streams(0, seed="2"))
    with open_checkpointer(tmp_path) as checkpointer:
        restored = checkpointer.restore_latest(like=make_state(0), batches=None)
        assert_same(restored, make_state(1))
    restored = reader.restore_state(step_directory, like=make_state(0), batches=None)
    assert_same(restored, make_state(1))


def placed(state: State, num_devices: int, *, fsdp: int, tensor: int) -> State:
    """Split matrices over both axes and vectors over one, where they divide."""
    devices = np.array(jax.devices()[:num_devices]).reshape(fsdp, tensor)
    mesh = Mesh(devices, ("fsdp", "tensor"))

    def place(leaf: jax.Array) -> jax.Array:
        sizes = zip(leaf.shape, ("tensor", "fsdp"), (tensor, fsdp), strict=False)
        spec = PartitionSpec(*(axis if dim % size == 0 else None for dim, axis, size in sizes))
        return jax.device_put(leaf, NamedSharding(mesh, spec))

    return jax.tree.map(place, state)


def test_restores_onto_other_meshes(tmp_path: Path) -> None:
    state = make_state(1, width=16)
    with open_checkpointer(tmp_path) as checkpointer:
        checkpointer.save(placed(state, 8, fsdp=4, tensor=2), make_batches(), metrics={})
        for sizes in ((1, 1), (2, 1), (1, 2), (4, 1), (2, 2)):
            target = placed(state, sizes[0] * sizes[1], fsdp=sizes[0], tensor=sizes[1])
            restored = checkpointer.restore(1, like=abstract(target), batches=make_batches())
            shardings = [jax.tree.map(lambda leaf: leaf.sharding, t) for t in (restored, target)]
            assert shardings[0] == shardings[1]
            assert_same(restored, state)


PASS_ON = """
import sys
from pathlib import Path
import jax
sys.path[:0] = {paths!r}
from test_checkpointer import abstract, assert_same, make_batches, make_state, open_checkpointer
from test_checkpointer import placed

fsdp, tensor = map(int, sys.argv[2:])
num_devices = fsdp * tensor
assert jax.device_count() == num_devices
state = make_state(1, width=16)
with open_checkpointer(Path(sys.argv[1])) as checkpointer:
    like = abstract(placed(state, num_devices, fsdp=fsdp, tensor=tensor))
    restored = checkpointer.restore_latest(like=like, batches=make_batches())
    assert_same(restored.replace(step=state.step), state)
    checkpointer.save(restored.replace(step=restored.step + 1), make_batches(), metrics={{}})
"""


def test_restores_in_processes_with_other_numbers_of_devices(tmp_path: Path) -> None:
    state = make_state(1, width=16)
    with open_checkpointer(tmp_path) as checkpointer:
        checkpointer.save(placed(state, 8, fsdp=4, tensor=2), make_batches(), metrics={})
    tests = Path(__file__).parent
    script = PASS_ON.format(paths=[str(tests), str(tests.parent)])
    for fsdp, tensor in ((2, 2), (1, 1)):
        environment = os.environ | {
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={fsdp * tensor}",
        }
        command = [sys.executable, "-c", script, str(tmp_path), str(fsdp), str(tensor)]
        subprocess.run(command, env=environment, check=True)
    with open_checkpointer(tmp_path) as checkpointer:
        like = abstract(placed(state, 8, fsdp=8, tensor=1))
        restored = checkpointer.restore(3, like=like, batches=make_batches())
    assert_same(restored.replace(step=state.step), state)


def test_every_complete_checkpoint_is_sealed(tmp_path: Path) -> None:
    save_steps(tmp_path, 1)
    assert find_damage(tmp_path / "1") is None
    lines = (tmp_path / "1" / MANIFEST_NAME).read_text().splitlines()
    sealed = {line.split("  ")[1] for line in lines}
    files = {p.relative_to(tmp_path / "1") for p in (tmp_path / "1").rglob("*/*") if p.is_file()}
    assert sealed == {str(path) for path in files}
