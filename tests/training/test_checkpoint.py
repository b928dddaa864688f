import gc
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import flax.struct
import grain
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flax_transformer.errors import InputError
from flax_transformer.training import checkpoint_reader
from flax_transformer.training.checkpoint import Checkpointer
from flax_transformer.training.checkpoint_reader import DamagedCheckpointError
from flax_transformer.training.manifest import MANIFEST_NAME, find_damage
from flax_transformer.training.retention import rank_steps, steps_to_keep

OPTIMIZER = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(1e-3))


@flax.struct.dataclass
class State:
    step: Any
    params: Any
    optimizer_state: Any
    dropout_key: Any


def make_state(step: int, *, width: int = 5, seed: int = 0) -> State:
    key = jax.random.key(seed + step)
    params = {
        "embedding": jax.random.normal(key, (7, width)),
        "layers_0": {"scale": jax.random.normal(key, (width,)).astype(jnp.bfloat16)},
    }
    return State(
        step=jnp.int32(step),
        params=params,
        optimizer_state=OPTIMIZER.init(params),
        dropout_key=jax.random.key_data(key),
    )


def make_batches(seed: int = 3) -> grain.DatasetIterator:
    return iter(grain.MapDataset.range(97).shuffle(seed=seed).repeat().to_iter_dataset())


def abstract(tree: Any) -> Any:
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), tree
    )


def open_checkpointer(directory: Path, keep_last: int = 9, keep_best: int = 1) -> Checkpointer:
    return Checkpointer(directory, keep_last=keep_last, keep_best=keep_best, best_metric="bleu")


def save_steps(directory: Path, *steps: int) -> None:
    with open_checkpointer(directory) as checkpointer:
        for step in steps:
            checkpointer.save(make_state(step), make_batches(), metrics={})


def assert_same(actual: Any, expected: Any) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for left, right in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert left.dtype == right.dtype
        assert np.asarray(left).tobytes() == np.asarray(right).tobytes()


def largest_file(directory: Path) -> Path:
    return max((p for p in directory.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


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
    params = checkpoint_reader.restore_parameters(tmp_path / "2", like=abstract(state.params))
    assert_same(params, state.params)
    shapes = jax.eval_shape(lambda: state.params)
    on_host = checkpoint_reader.restore_parameters(tmp_path / "2", like=shapes)
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(on_host))
    assert_same(on_host, state.params)


def test_a_renamed_directory_restores(tmp_path: Path) -> None:
    save_steps(tmp_path / "old", 2)
    (tmp_path / "old").rename(tmp_path / "new")
    with open_checkpointer(tmp_path / "new") as checkpointer:
        restored = checkpointer.restore(2, like=make_state(2), batches=make_batches())
    assert_same(restored, make_state(2))


@given(
    st.lists(st.none() | st.floats(), min_size=1, max_size=9), st.integers(1, 4), st.integers(0, 3)
)
def test_retention_relations(scores: list[float | None], keep_last: int, keep_best: int) -> None:
    by_step = dict(enumerate(scores))
    kept = steps_to_keep(by_step, keep_last=keep_last, keep_best=keep_best)
    last = set(list(by_step)[-keep_last:])
    assert last <= kept <= set(by_step)
    assert len(kept) <= keep_last + keep_best
    finite = [step for step, s in by_step.items() if s is not None and math.isfinite(s)]
    ranked = rank_steps(by_step)
    assert sorted(ranked) == finite
    assert all(by_step[step] is not None for step in kept - last)
    without = {step: by_step[step] for step in finite}
    assert rank_steps(without) == ranked  # steps without a score change nothing


def test_keeps_the_last_and_the_best(tmp_path: Path) -> None:
    scores = {1: 10.0, 2: 30.0, 3: 20.0, 4: math.nan, 5: None, 6: math.inf, 7: 5.0}
    with open_checkpointer(tmp_path, keep_last=2, keep_best=1) as checkpointer:
        for step, score in scores.items():
            metrics = {} if score is None else {"bleu": score}
            checkpointer.save(make_state(step), make_batches(), metrics=metrics)
            checkpointer.wait()
            finite = {
                s: v for s, v in scores.items() if s <= step and v is not None and math.isfinite(v)
            }
            best = max(finite, key=lambda s: finite[s])
            assert set(checkpointer.steps()) == {best, *range(max(1, step - 1), step + 1)}
    with open_checkpointer(tmp_path, keep_last=1, keep_best=1) as checkpointer:  # reads the scores
        checkpointer.save(make_state(8), make_batches(), metrics={"bleu": math.nan})
        checkpointer.wait()
        assert checkpointer.steps() == [2, 8]
        assert math.isnan(checkpointer.metrics(8)["bleu"])


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


def cut(step: Path) -> None:
    file = largest_file(step / "state")
    os.truncate(file, file.stat().st_size // 2)


def zero(step: Path) -> None:
    file = largest_file(step / "state")
    file.write_bytes(bytes(file.stat().st_size))


def flip_a_bit(step: Path) -> None:
    file = largest_file(step / "state")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def empty(step: Path) -> None:
    shutil.rmtree(step)
    step.mkdir()


DAMAGES = {
    "cut": cut,
    "zeroed": zero,
    "bit": flip_a_bit,
    "empty": empty,
    "file deleted": lambda step: largest_file(step / "state").unlink(),
    "state deleted": lambda step: shutil.rmtree(step / "state"),
    "batches deleted": lambda step: shutil.rmtree(step / "batches"),
    "metadata deleted": lambda step: (step / "state" / "_METADATA").unlink(),
    "metadata garbage": lambda step: (step / "state" / "_METADATA").write_bytes(b"\xff{"),
    "root metadata garbage": lambda step: (
        (step / "_CHECKPOINT_METADATA").write_bytes(b"\xff{"),
        cut(step),
    ),
    "manifest deleted": lambda step: (step / MANIFEST_NAME).unlink(),
    "manifest cut": lambda step: os.truncate(step / MANIFEST_NAME, 70),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_damage_is_named_and_the_step_before_is_used(
    tmp_path: Path, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    save_steps(tmp_path, 10, 20)
    damage(tmp_path / "20")
    with open_checkpointer(tmp_path) as checkpointer:
        with pytest.raises(DamagedCheckpointError, match=r"checkpoint .*/20 is damaged: .*Delete"):
            checkpointer.restore(20, like=make_state(0), batches=make_batches())
        restored = checkpointer.restore_latest(like=make_state(0), batches=make_batches())
        assert_same(restored, make_state(10))
        assert f"{tmp_path}/20 is damaged" in caplog.text
        assert checkpointer.steps() == [10]
        checkpointer.save(make_state(15), make_batches(), metrics={})
        checkpointer.save(make_state(20), make_batches(), metrics={})
        checkpointer.wait()
        assert checkpointer.steps() == [10, 15, 20]
        restored = checkpointer.restore(20, like=make_state(0), batches=make_batches())
    assert_same(restored, make_state(20))


def test_all_damaged_is_an_error(tmp_path: Path) -> None:
    save_steps(tmp_path, 10, 20)
    cut(tmp_path / "10")
    empty(tmp_path / "20")
    with (
        open_checkpointer(tmp_path) as checkpointer,
        pytest.raises(InputError, match=r"every checkpoint in .* \(step 10, step 20\)"),
    ):
        checkpointer.restore_latest(like=make_state(0), batches=make_batches())
    assert {path.name for path in tmp_path.iterdir()} >= {"10", "20"}


def test_damaged_metrics_only_lose_the_score(tmp_path: Path) -> None:
    with open_checkpointer(tmp_path) as checkpointer:
        checkpointer.save(make_state(1), make_batches(), metrics={"bleu": 1.0})
    for file in (tmp_path / "1" / checkpoint_reader.METRICS_ITEM).iterdir():
        file.write_text("[1")
    with open_checkpointer(tmp_path) as checkpointer:
        assert checkpointer.metrics(1) == {}


def test_another_model_is_refused_with_the_paths(tmp_path: Path) -> None:
    save_steps(tmp_path, 1)
    with open_checkpointer(tmp_path) as checkpointer:
        for restore in (
            lambda like: checkpointer.restore(1, like=like, batches=make_batches()),
            lambda like: checkpointer.restore_latest(like=like, batches=make_batches()),
            lambda like: checkpoint_reader.restore_parameters(tmp_path / "1", like=like.params),
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


def test_another_number_of_processes_is_refused(tmp_path: Path) -> None:
    save_steps(tmp_path, 1)
    batches = tmp_path / "1" / "batches"
    (batches / "process_1-of-2.json").write_text("{}")
    with (
        open_checkpointer(tmp_path) as checkpointer,
        pytest.raises(InputError, match="written by 2 processes and must be resumed by as many"),
    ):
        checkpointer.restore(1, like=make_state(0), batches=make_batches())


def test_a_directory_has_one_writer(tmp_path: Path) -> None:
    with (
        open_checkpointer(tmp_path),
        pytest.raises(InputError, match=rf"is in use by process {os.getpid()}"),
    ):
        open_checkpointer(tmp_path)
    open_checkpointer(tmp_path).close()


def test_a_file_in_place_of_the_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="must be a writable directory"):
        open_checkpointer(tmp_path / "file")


@contextmanager
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


def test_read_only_directory_fails_at_once(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "1m") as disk:
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(InputError, match=r"must be a writable directory, got: .*Read-only"):
            open_checkpointer(disk / "checkpoints")


# Orbax drops the coroutines of a failed save without closing them.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_full_disk_surfaces_and_harms_nothing(tmp_path: Path) -> None:
    def large(step: int) -> State:
        noise = jax.random.normal(jax.random.key(step), (300_007,))  # does not compress
        return make_state(step).replace(params={"kernel": noise}, optimizer_state=())

    with small_disk(tmp_path / "disk", "3m") as disk:
        with open_checkpointer(disk) as checkpointer:
            checkpointer.save(large(1), make_batches(), metrics={})
            checkpointer.wait()
            checkpointer.save(large(2), make_batches(), metrics={})
            checkpointer.wait()
            checkpointer.save(large(3), make_batches(), metrics={})
            with pytest.raises(
                InputError, match=r"step 3 cannot be saved in .*: No space"
            ) as caught:
                checkpointer.save(large(4), make_batches(), metrics={})
            assert "\n" not in str(caught.value)
            assert checkpointer.steps() == [1, 2]
        with open_checkpointer(disk, keep_last=1) as checkpointer:
            restored = checkpointer.restore_latest(like=large(0), batches=make_batches())
            assert_same(restored, large(2))
    gc.collect()


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from test_checkpoint import make_batches, make_state, open_checkpointer

with open_checkpointer(Path(sys.argv[1]), keep_last=2) as checkpointer:
    for step in range(1, 10_000):
        checkpointer.save(make_state(step), make_batches(), metrics={{}})
        print(step, flush=True)
"""


def test_kill_9_in_a_save_loses_nothing_complete(tmp_path: Path) -> None:
    script = KILLED.format(tests=str(Path(__file__).parent))
    for delay in (0.0, 0.03):
        process = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path / str(delay))],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        with process.stdout:
            for line in process.stdout:
                if int(line) >= 3:
                    break
            time.sleep(delay)
            process.send_signal(signal.SIGKILL)
            process.wait()
        directory = tmp_path / str(delay)
        with open_checkpointer(directory) as checkpointer:
            restored = checkpointer.restore_latest(like=make_state(0), batches=make_batches())
            assert restored is not None
            assert int(restored.step) >= 2
            assert_same(restored, make_state(int(restored.step)))
            checkpointer.save(make_state(int(restored.step) + 1), make_batches(), metrics={})
        assert not list(directory.glob("*tmp*"))


def test_stale_temporary_directories_are_removed(tmp_path: Path) -> None:
    save_steps(tmp_path, 1)
    stale = tmp_path / "2.orbax-checkpoint-tmp"
    shutil.copytree(tmp_path / "1", stale)
    with open_checkpointer(tmp_path) as checkpointer:
        assert checkpointer.steps() == [1]
        checkpointer.save(make_state(2), make_batches(), metrics={})
    assert not stale.exists()
    assert checkpoint_reader.list_steps(tmp_path) == [1, 2]


EIGHT_DEVICES = """
import sys
from pathlib import Path
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
sys.path.insert(0, {tests!r})
from test_checkpoint import assert_same, make_batches, make_state, open_checkpointer

assert jax.device_count() == 8
directory = Path(sys.argv[1])
mesh = Mesh(np.array(jax.devices()), ("data",))
def place(leaf):
    spec = PartitionSpec("data") if leaf.shape[:1] == (16,) else PartitionSpec()
    return NamedSharding(mesh, spec)
state = make_state(1, width=16)
shardings = jax.tree.map(place, state)
like = jax.tree.map(
    lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
    state, shardings,
)
with open_checkpointer(directory) as checkpointer:
    restored = checkpointer.restore(1, like=like, batches=make_batches())
    assert jax.tree.map(lambda leaf: leaf.sharding, restored) == shardings
    assert_same(restored, state)
    checkpointer.save(restored.replace(step=restored.step + 1), make_batches(), metrics={{}})
"""


def test_restores_onto_another_number_of_devices(tmp_path: Path) -> None:
    state = make_state(1, width=16)
    with open_checkpointer(tmp_path) as checkpointer:
        checkpointer.save(state, make_batches(), metrics={})
    script = EIGHT_DEVICES.format(tests=str(Path(__file__).parent))
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
    }
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], env=environment, check=True)
    with open_checkpointer(tmp_path) as checkpointer:
        restored = checkpointer.restore(2, like=abstract(state), batches=make_batches())
    assert_same(restored.replace(step=state.step), state)


def test_every_complete_checkpoint_is_sealed(tmp_path: Path) -> None:
    save_steps(tmp_path, 1)
    assert find_damage(tmp_path / "1") is None
    lines = (tmp_path / "1" / MANIFEST_NAME).read_text().splitlines()
    sealed = {line.split("  ")[1] for line in lines}
    files = {p.relative_to(tmp_path / "1") for p in (tmp_path / "1").rglob("*/*") if p.is_file()}
    assert sealed == {str(path) for path in files}
