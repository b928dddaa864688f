"""The mesh of devices, and how the rows of a batch lie on it."""

import dataclasses
import math
from collections.abc import Sequence
from typing import TypeVar

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from flax_transformer.errors import InputError

MESH_AXES = ("data", "fsdp", "tensor")
BATCH_AXES = ("data", "fsdp")
"""The axes that the rows of a batch are split over."""

Rows = TypeVar("Rows", bound=tuple)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Sizes of the mesh of devices; one of them may be -1, for all devices that are left.

    Attributes:
        data: copies of the model; each computes a part of the batch.
        fsdp: parts that parameters are split into, gathered where they are used; each computes a
            part of the batch, too.
        tensor: parts that heads, hidden layers and the vocabulary are split into.
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self) -> None:
        """Refuse sizes that make no mesh."""
        sizes = dataclasses.astuple(self)
        if any(size < 1 and size != -1 for size in sizes) or sizes.count(-1) > 1:
            raise InputError(
                "mesh.data, mesh.fsdp and mesh.tensor must be at least 1, one of them may be -1, "
                f"got {', '.join(map(str, sizes))}."
            )


@dataclasses.dataclass(frozen=True)
class BatchPart:
    """One of ``count`` equal shares of a batch's rows, in order; ``index`` counts from 0."""

    index: int
    count: int


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Arrange devices in a mesh of the axes ``data``, ``fsdp`` and ``tensor``.

    Raises:
        InputError: the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = list(dataclasses.astuple(config))
    if -1 in sizes:
        others = math.prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = len(devices) // others
    if math.prod(sizes) != len(devices):
        raise InputError(
            f"mesh.data, mesh.fsdp and mesh.tensor must multiply to the {len(devices)} devices "
            f"at hand, got {' x '.join(map(str, dataclasses.astuple(config)))}."
        )
    axis_types = (AxisType.Auto,) * len(MESH_AXES)
    if jax.process_count() == 1:
        return jax.make_mesh(tuple(sizes), MESH_AXES, axis_types=axis_types, devices=devices)
    # JAX would follow the links of a torus, along which the devices of a process need not be
    # neighbours; but each process has one block of a batch's rows.
    ordered = sorted(devices, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(ordered).reshape(sizes), MESH_AXES, axis_types=axis_types)


def num_batch_shards(mesh: Mesh) -> int:
    """Return the number of parts that the rows of a batch are split into."""
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Split rows over all devices that hold copies of the model or parts of its parameters."""
    return NamedSharding(mesh, PartitionSpec(BATCH_AXES))


def batch_part(mesh: Mesh) -> BatchPart:
    """Return the share of each batch that this process must provide.

    Processes whose devices split one copy of the model between them have the same share.

    Raises:
        InputError: the rows of this process's devices are not one equal share.
    """
    num_shards = num_batch_shards(mesh)
    index_of = batch_sharding(mesh).addressable_devices_indices_map((num_shards,))
    shards = sorted({index[0].start or 0 for index in index_of.values() if index})
    size = len(shards)
    if num_shards % size or shards != list(range(shards[0], shards[0] + size)) or shards[0] % size:
        raise InputError(
            "mesh.data, mesh.fsdp and mesh.tensor must give each process equal rows of a batch "
            f"that follow each other, got the shards {shards} of {num_shards} for process "
            f"{jax.process_index()}."
        )
    return BatchPart(shards[0] // size, num_shards // size)


def place_rows(rows: Rows, mesh: Mesh) -> Rows:
    """Make global arrays of the rows ``[B, …]`` that each process has of a batch.

    Args:
        rows: a named tuple of arrays with this process's share of the batch; see batch_part.
        mesh: the devices.
    """
    sharding = batch_sharding(mesh)
    count = batch_part(mesh).count

    def place(array: np.ndarray) -> jax.Array:
        shape = (array.shape[0] * count, *array.shape[1:])
        return jax.make_array_from_process_local_data(sharding, array, shape)

    return jax.tree.map(place, rows)
