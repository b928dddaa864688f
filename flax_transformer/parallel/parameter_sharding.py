"""Where the parameters and what belongs to them lie on a mesh of devices."""

import math
import re
from typing import Protocol, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flax_transformer.array_types import Parameters
from flax_transformer.errors import InputError
from flax_transformer.parallel.processes import place_whole
from flax_transformer.parallel.sharding_rules import WHOLE, ShardingRules
from flax_transformer.tree_paths import flatten_tree, join_path

STACKED_PREFIX = r"(^|/)layers/"
"""Where parameters of all layers are stacked along a first dimension."""


class WithParameters(Protocol):
    """A tree of arrays that holds parameters, such as the state of a training."""

    @property
    def params(self) -> Parameters:
        """The parameters."""


State = TypeVar("State", bound=WithParameters)


def parameter_spec(
    path: str, shape: tuple[int, ...], mesh: Mesh, rules: ShardingRules
) -> PartitionSpec:
    """Return how the parameter at ``path``, names joined by ``/``, lies on ``mesh``.

    Raises:
        InputError: not exactly one row of the table matches, the row is not for as many
            dimensions, or a dimension that is split does not divide.
    """
    matches = [axes for pattern, axes in rules.parameters if re.search(f"(?:{pattern})$", path)]
    if len(matches) != 1:
        raise InputError(f"sharding.parameters must match {path} once, got {len(matches)} matches.")
    axes = matches[0].split()
    if re.search(STACKED_PREFIX, path):
        axes = [WHOLE, *axes]
    if len(axes) != len(shape):
        raise InputError(
            f"sharding.parameters must name the axes of {path}, which has shape {shape}, got "
            f"{' '.join(axes)!r}."
        )
    mesh_axes = [rules.mesh_axes()[axis] for axis in axes]
    for size, names in zip(shape, mesh_axes, strict=True):
        parts = math.prod(mesh.shape[name] for name in names)
        if size % parts:
            sizes = " and ".join(f"mesh.{name}" for name in names)
            raise InputError(
                f"{sizes} must divide the dimensions they split: {path} has shape {shape} "
                f"and {size} is not a multiple of {parts}."
            )
    return PartitionSpec(*(names or None for names in mesh_axes))


def parameter_shardings(params: Parameters, mesh: Mesh, rules: ShardingRules) -> Parameters:
    """Return the sharding of every parameter of a tree of arrays or of shapes."""
    return jax.tree_util.tree_map_with_path(
        lambda key_path, leaf: NamedSharding(
            mesh, parameter_spec(join_path(key_path), leaf.shape, mesh, rules)
        ),
        params,
    )


def place_parameters(params: Parameters, mesh: Mesh, rules: ShardingRules) -> Parameters:
    """Lay arrays that every process holds whole, and holds the same, out over the mesh."""
    return jax.tree.map(
        lambda leaf, sharding: place_whole(np.asarray(leaf), sharding),
        params,
        parameter_shardings(params, mesh, rules),
    )


def state_shardings(state: State, mesh: Mesh, rules: ShardingRules) -> State:
    """Return the sharding of every array of an abstract state.

    An array whose path ends as a parameter's, and that has its shape, lies as that parameter: the
    parameters themselves, the moments of Adam. All else is copied to every device (counters,
    Adafactor's rows and columns).
    """
    leaves = flatten_tree(state.params)
    shardings = flatten_tree(parameter_shardings(state.params, mesh, rules))

    def sharding_of(key_path: jax.tree_util.KeyPath, leaf: jax.ShapeDtypeStruct) -> NamedSharding:
        names = join_path(key_path).split("/")
        for start in range(len(names)):
            path = "/".join(names[start:])
            if path in leaves and leaves[path].shape == leaf.shape:
                return shardings[path]
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree_util.tree_map_with_path(sharding_of, state)


def placed_shapes(state: State, mesh: Mesh, rules: ShardingRules) -> State:
    """Return an abstract state whose shapes carry their shardings, to restore arrays into."""
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        state,
        state_shardings(state, mesh, rules),
    )
