"""Where the arrays that a model computes shall lie on a mesh of devices.

XLA chooses the layout of what is computed from that of the parameters and the batch, and sometimes
chooses badly: it may gather a batch where it should gather a weight. So the modules say, at the few
places where it matters, what the dimensions of an array mean; while a trainer has named a mesh and
its rules, that becomes a constraint, and nothing otherwise. The values are the same either way.
"""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flax_transformer.array_types import Array, Float
from flax_transformer.parallel.sharding_rules import ShardingRules


class _Placement(NamedTuple):
    mesh: Mesh
    rules: ShardingRules


_PLACEMENT: contextvars.ContextVar[_Placement | None] = contextvars.ContextVar(
    "placement", default=None
)


@contextlib.contextmanager
def sharded_activations(mesh: Mesh, rules: ShardingRules) -> Iterator[None]:
    """Let :func:`constrain` act on what is traced within."""
    token = _PLACEMENT.set(_Placement(mesh, rules))
    try:
        yield
    finally:
        _PLACEMENT.reset(token)


def is_spread() -> bool:
    """Tell whether what is traced now will run on several devices together.

    >>> is_spread()
    False
    """
    placement = _PLACEMENT.get()
    return placement is not None and placement.mesh.size > 1


def constrain(array: Float[Array, "..."], *axes: str) -> Float[Array, "..."]:
    """Return ``array``, to lie as the logical ``axes`` of its dimensions say; ``_`` is whole.

    Outside of :func:`sharded_activations` it is returned as it is.

    Raises:
        KeyError: an axis is not in the rules.
    """
    placement = _PLACEMENT.get()
    if placement is None:
        return array
    mesh_axes = placement.rules.mesh_axes()
    spec = PartitionSpec(*(mesh_axes[axis] or None for axis in axes))
    return jax.lax.with_sharding_constraint(array, NamedSharding(placement.mesh, spec))
