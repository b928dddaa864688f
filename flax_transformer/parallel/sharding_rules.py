"""The two tables of where arrays lie: paths to logical axes, logical axes to those of the mesh."""

import dataclasses
import re
from collections.abc import Mapping
from typing import TypeAlias

from flax_transformer.errors import InputError
from flax_transformer.parallel.mesh import MESH_AXES

MeshAxes: TypeAlias = tuple[str, ...]
"""Axes of the mesh that one dimension is split over, the outermost first; none if it is whole."""

WHOLE = "_"
"""In a list of axes: a dimension that is never split."""

ACTIVATIONS = (
    "batch length heads",
    "batch length mlp",
    "batch state_length",
    "batch logits_length logits_vocab",
)
"""Logical axes of the arrays that the models place."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ShardingRules:
    """Two tables of pairs of strings, so that a config or a command line can replace them.

    Attributes:
        parameters: ends of parameter paths (regular expressions), and the logical axes of those
            parameters, with ``_`` for a dimension that is never split. Every parameter must match
            exactly one row. Where the parameters of all layers are stacked, their first dimension
            is not counted, and is never split.
        axes: logical axes, and the axes of the mesh that each is split over: one, several joined
            by ``+``, or ``_`` for none. Within a sub-layer, activations have the axes ``batch``,
            ``length``, ``heads`` and ``mlp``; between layers, ``batch`` and ``state_length``,
            which over ``tensor`` is sequence parallelism (Korthikanti et al., 2022, arXiv
            2205.05198); logits, ``batch``, ``logits_length`` and ``logits_vocab``.
    """

    parameters: tuple[tuple[str, str], ...] = (
        (r"(source|target|output)_embedding/embedding", "vocab embed"),
        (r"(source|target)_positions/embedding", "_ embed"),
        (r"token_type_embedding/embedding", "_ embed"),
        (r"relative_bias/embedding", "_ heads"),
        (r"output_bias", "vocab"),
        (r"_attention/(query|key|value)/kernel", "embed heads _"),
        (r"_attention/(query|key|value)/bias", "heads _"),
        (r"_attention/output/kernel", "heads _ embed"),
        (r"_attention/output/bias", "_"),
        (r"feed_forward/(hidden|gate)/kernel", "embed mlp"),
        (r"feed_forward/(hidden|gate)/bias", "mlp"),
        (r"feed_forward/output/kernel", "mlp embed"),
        (r"feed_forward/output/bias", "_"),
        (r"norm/(scale|bias)", "_"),
        (r"(pooler|transform)/kernel", "embed mlp"),
        (r"(pooler|transform)/bias", "mlp"),
        (r"classifier/kernel", "embed _"),
        (r"classifier/bias", "_"),
        (r"lora_[ab]", "_ _"),
    )
    axes: tuple[tuple[str, str], ...] = (
        ("vocab", "tensor"),
        ("heads", "tensor"),
        ("mlp", "tensor"),
        ("embed", "fsdp"),
        ("batch", "data+fsdp"),
        ("length", "_"),
        ("state_length", "_"),
        # The tables of logits are the largest arrays there are. Where heads are split over
        # devices, the logits of a sentence are split by position, so that the softmax is local.
        ("logits_length", "tensor"),
        ("logits_vocab", "_"),
    )

    def __post_init__(self) -> None:
        """Refuse tables that contradict each other or name what does not exist."""
        self._check_axes()
        for axes in ACTIVATIONS:
            for axis in axes.split():
                if axis not in self.mesh_axes():
                    raise InputError(f"sharding.axes must name {axis!r}, which the models use.")
            if self._split_one_axis_twice(axes):
                raise InputError(
                    "sharding.axes must split the dimensions of one array over different axes of "
                    f"the mesh, got one for two of {axes!r}."
                )
        for pattern, axes in self.parameters:
            try:
                re.compile(pattern)
            except re.error as error:
                raise InputError(
                    f"sharding.parameters must hold regular expressions, got {pattern!r}: {error}."
                ) from error
            for axis in axes.split():
                if axis not in self.mesh_axes():
                    raise InputError(
                        f"sharding.parameters must name axes of sharding.axes, got {axis!r} for "
                        f"{pattern!r}."
                    )
            if self._split_one_axis_twice(axes):
                raise InputError(
                    "sharding.parameters must split the dimensions of one parameter over different "
                    f"axes of the mesh, got {axes!r} for {pattern!r}."
                )

    def with_axes(self, changes: Mapping[str, str]) -> "ShardingRules":
        """Return these rules with some logical axes split otherwise, or added.

        >>> ShardingRules().with_axes({"embed": "data+fsdp"}).mesh_axes()["embed"]
        ('data', 'fsdp')
        """
        return dataclasses.replace(self, axes=tuple({**dict(self.axes), **changes}.items()))

    def mesh_axes(self) -> Mapping[str, MeshAxes]:
        """Map each logical axis to the axes of the mesh that it is split over.

        >>> ShardingRules().mesh_axes()["batch"]
        ('data', 'fsdp')
        """
        return {
            name: () if axes == WHOLE else tuple(axes.split("+")) for name, axes in self.axes
        } | {WHOLE: ()}

    def _check_axes(self) -> None:
        names = [name for name, _ in self.axes]
        for name, mesh_axes in self.mesh_axes().items():
            if names.count(name) > 1:
                raise InputError(f"sharding.axes must name {name!r} once.")
            for axis in mesh_axes:
                if axis not in MESH_AXES:
                    raise InputError(
                        f"sharding.axes must split {name!r} over {', '.join(MESH_AXES)} or "
                        f"{WHOLE}, got {axis!r}."
                    )
            if len(set(mesh_axes)) < len(mesh_axes):
                raise InputError(
                    f"sharding.axes must split {name!r} over each axis of the mesh once, got "
                    f"{'+'.join(mesh_axes)!r}."
                )

    def _split_one_axis_twice(self, axes: str) -> bool:
        """Tell whether two of the logical ``axes`` are split over the same axis of the mesh."""
        used = [name for axis in axes.split() for name in self.mesh_axes()[axis]]
        return len(set(used)) < len(used)
