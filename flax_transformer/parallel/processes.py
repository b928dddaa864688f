"""What the processes of one training tell each other; in a single process all of it is free."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flax_transformer.array_types import Array, Bool
from flax_transformer.errors import InputError


def is_first_process() -> bool:
    """Tell whether this is the process that writes what is to be written once.

    >>> is_first_process()
    True
    """
    return jax.process_index() == 0


def say(line: str) -> None:
    """Print ``line`` at once, in the first process only.

    >>> say("24 pairs")
    24 pairs
    """
    if is_first_process():
        print(line, flush=True)


def wait_for_all(name: str) -> None:
    """Return when every process has called this with the same ``name``."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def tell_all(flag: bool) -> bool:
    """Return the first process's ``flag`` in every process; all of them must call this.

    >>> tell_all(True)
    True
    """
    return bool(multihost_utils.broadcast_one_to_all(np.int32(flag)))


def check_same(values: Mapping[str, object]) -> None:
    """Refuse to go on where processes were given different values; all of them must call this.

    Raises:
        InputError: in every process; the message names the first of the values that differ.

    >>> check_same({"seed": 0})
    """
    if jax.process_count() == 1:
        return
    names = sorted(values)
    if not _is_same([names]).all():
        raise InputError("all processes must run the same version and task, got different ones.")
    is_same = _is_same([values[name] for name in names])
    for name in (name for name, same in zip(names, is_same, strict=True) if not same):
        raise InputError(
            f"{name} must be the same in all processes, got {values[name]} in process "
            f"{jax.process_index()}."
        )


def do_once(action: Callable[[], None], name: str) -> None:
    """Let the first process do something for all, and return when it is done.

    Every process must call this with the same ``name``.

    Raises:
        InputError: the first process could not do it.
        OSError: likewise, in that process alone.

    >>> do_once(lambda: print("done"), "the example")
    done
    """
    error: InputError | OSError | None = None
    if is_first_process():
        try:
            action()
        except (InputError, OSError) as caught:
            error = caught
    # All must hear of it, or they would wait for a process that has gone another way.
    has_failed = tell_all(error is not None)
    if error is not None:
        raise error
    if has_failed:
        raise InputError(f"{name} must be done by the first process, which says why it is not.")


def fetch(tree: Any) -> Any:
    """Return ``tree`` with NumPy arrays for leaves, whole in every process.

    A leaf that lies on the devices of several processes is gathered on each device on the way, one
    leaf at a time. Every process must call this with the same tree.

    >>> fetch({"scale": jnp.ones(2)})
    {'scale': array([1., 1.], dtype=float32)}
    """
    return jax.tree.map(_fetch_leaf, tree)


def place_whole(array: np.ndarray, sharding: NamedSharding) -> Array:
    """Make a global array of one that every process holds whole, and holds the same.

    Unlike ``jax.device_put`` this does not compare the processes' arrays with each other.
    """
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


class AnyProcess:
    """How processes agree that one of them wants something, such as to stop after a signal.

    The answer is read one call late, so that it never makes the host wait for the work that it
    has just given to the devices.

    >>> AnyProcess().tell(True)  # a single process need not ask
    True
    """

    def __init__(self) -> None:
        mesh = Mesh(np.array(jax.devices()), ("device",))
        self._sharding = NamedSharding(mesh, PartitionSpec("device"))
        # Integers: not every backend reduces Booleans.
        self._largest = jax.jit(jnp.max, out_shardings=NamedSharding(mesh, PartitionSpec()))
        self._previous: Array | None = None

    def tell(self, flag: bool) -> bool:
        """Say whether this process wants it; return whether any did in the call before.

        Every process must call this equally often, between the same computations. All get the same
        answer from the same call. In a single process the answer is ``flag`` itself.
        """
        if jax.process_count() == 1:
            return flag
        flags = np.full(jax.local_device_count(), flag, np.int32)
        asked = jax.make_array_from_process_local_data(self._sharding, flags)
        previous, self._previous = self._previous, self._largest(asked)
        return previous is not None and bool(jax.device_get(previous))

    def settle(self, flag: bool) -> bool:
        """Say whether this process wants it; return whether any does now, waiting for the answer.

        Every process must call this at the same point.
        """
        self.tell(flag)
        return self.tell(flag)


def _is_same(values: Sequence[object]) -> Bool[np.ndarray, " n"]:
    """Tell of each value whether all processes have it; they must have equally many."""
    hashes = [hashlib.sha256(repr(value).encode()).digest()[:4] for value in values]
    ours = np.frombuffer(b"".join(hashes), np.uint32)
    everyone = np.asarray(multihost_utils.process_allgather(ours))
    return (everyone == everyone[0]).all(axis=0)


def _fetch_leaf(leaf: Any) -> np.ndarray:
    if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
        return multihost_utils.process_allgather(leaf, tiled=True)
    return np.asarray(leaf)
