"""Where arrays lie: parameter paths to logical axes to the axes of a mesh of devices."""

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from flax_transformer.data.batch import Batch
from flax_transformer.errors import InputError
from flax_transformer.training.state import TrainState
from flax_transformer.tree_paths import flatten_tree, join_path

LogicalAxes: TypeAlias = tuple[str | None, ...]

MESH_AXES = ("data", "fsdp", "tensor")

PARAMETER_AXES: Sequence[tuple[str, LogicalAxes]] = (
    (r"(source|target|output)_embedding/embedding", ("vocab", "embed")),
    (r"(source|target)_positions/embedding", (None, "embed")),
    (r"_attention/(query|key|value)/kernel", ("embed", "heads", None)),
    (r"_attention/output/kernel", ("heads", None, "embed")),
    (r"feed_forward/(hidden|gate)/kernel", ("embed", "mlp")),
    (r"feed_forward/(hidden|gate)/bias", ("mlp",)),
    (r"feed_forward/output/kernel", ("mlp", "embed")),
    (r"feed_forward/output/bias", (None,)),
    (r"norm/(scale|bias)", (None,)),
)
"""Ends of parameter paths, and the logical axes of those parameters."""

STACKED_PREFIX = r"(^|/)layers/"
"""Where parameters of all layers are stacked along a first axis, which is not sharded."""

MESH_AXIS_OF: Mapping[str, str] = {
    "vocab": "tensor",
    "heads": "tensor",
    "mlp": "tensor",
    "embed": "fsdp",
}
"""The mesh axis that each logical axis is split over."""


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
    return jax.make_mesh(
        tuple(sizes), MESH_AXES, axis_types=(AxisType.Auto,) * len(MESH_AXES), devices=devices
    )


def num_batch_shards(mesh: Mesh) -> int:
    """Return the number of parts that the rows of a batch are split into."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Split rows over all devices that hold copies of the model or parts of its parameters."""
    return NamedSharding(mesh, PartitionSpec(("data", "fsdp")))


def place_batch(batch: Batch, mesh: Mesh) -> Batch:
    """Make global arrays of the rows that each process has."""
    sharding = batch_sharding(mesh)
    return Batch(*(jax.make_array_from_process_local_data(sharding, rows) for rows in batch))


def parameter_spec(path: str, shape: tuple[int, ...], mesh: Mesh) -> PartitionSpec:
    """Return how the parameter at ``path``, names joined by ``/``, lies on ``mesh``.

    Raises:
        InputError: not exactly one row of PARAMETER_AXES matches, or a dimension does not divide.
    """
    matches = [axes for pattern, axes in PARAMETER_AXES if re.search(pattern + "$", path)]
    if len(matches) != 1:
        raise InputError(f"PARAMETER_AXES must match {path} once, got {len(matches)} matches.")
    axes = matches[0]
    if re.search(STACKED_PREFIX, path):
        axes = (None, *axes)
    mesh_axes = [None if axis is None else MESH_AXIS_OF[axis] for axis in axes]
    for dim, mesh_axis in zip(shape, mesh_axes, strict=True):
        if mesh_axis is not None and dim % mesh.shape[mesh_axis]:
            raise InputError(
                f"mesh.{mesh_axis} must divide the dimensions it splits: {path} has shape {shape} "
                f"and {dim} is not a multiple of {mesh.shape[mesh_axis]}."
            )
    return PartitionSpec(*mesh_axes)


def state_shardings(state: TrainState, mesh: Mesh) -> TrainState:
    """Return the sharding of every array of an abstract state.

    Optimizer state lies as the parameter that it belongs to where it has its shape (the moments of
    Adam), and is copied to every device otherwise (counters, Adafactor's rows and columns).
    """
    leaves = flatten_tree(state.params)
    specs = {path: parameter_spec(path, leaf.shape, mesh) for path, leaf in leaves.items()}

    def sharding_of(key_path: jax.tree_util.KeyPath, leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        # Within the optimizer's state a parameter's path stands behind the names of its parts.
        names = join_path(key_path).split("/")
        for start in range(len(names)):
            path = "/".join(names[start:])
            if path in leaves and leaves[path].shape == leaf.shape:
                return NamedSharding(mesh, specs[path])
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree_util.tree_map_with_path(sharding_of, state)


def placed_shapes(state: TrainState, mesh: Mesh) -> TrainState:
    """Return an abstract state whose shapes carry their shardings, to restore arrays into."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        state,
        state_shardings(state, mesh),
    )
