"""What of a device's memory a training step takes, and for what."""

import math
from typing import NamedTuple

import jax

from flax_transformer.planning.compiled_step import CompiledStep

_FLOAT32_BYTES = 4


class MemoryUse(NamedTuple):
    """Bytes of one device.

    Attributes:
        parameters: this device's parts of them.
        optimizer_state: likewise.
        gradients: of the parameters that are trained, float32 and split as they are.
        activations: all temporary arrays without the gradients: what the backward pass needs of the
            forward pass, gathered weights, buffers of collectives.
        other: the batch, counters and metrics.
        total: the compiler's arguments, results and temporaries, those counted once that a result
            is written over. It is the sum of the others, unless all temporaries take less than the
            gradients, which then never stand whole.
    """

    parameters: int
    optimizer_state: int
    gradients: int
    activations: int
    other: int
    total: int


def measure_memory(step: CompiledStep) -> MemoryUse:
    """Return the memory of a compiled step, by the compiler's own report and the shardings.

    Raises:
        ValueError: the compiler reports nothing.
    """
    stats = step.executable.memory_analysis()
    if stats is None:
        raise ValueError("the compiler must report the memory that a program takes")
    kept = stats.argument_size_in_bytes + stats.output_size_in_bytes - stats.alias_size_in_bytes
    temporary = stats.temp_size_in_bytes
    parameters = bytes_per_device(step.state.params)
    optimizer_state = bytes_per_device(step.state.optimizer_state)
    gradients = sum(
        math.prod(_part_shape(leaf)) * _FLOAT32_BYTES for leaf in jax.tree.leaves(step.trained)
    )
    return MemoryUse(
        parameters=parameters,
        optimizer_state=optimizer_state,
        gradients=gradients,
        activations=max(temporary - gradients, 0),
        other=max(kept - parameters - optimizer_state, 0),
        total=kept + temporary,
    )


def bytes_per_device(tree: object) -> int:
    """Add up the bytes of one device's parts of all arrays, or abstract arrays, of a tree."""
    return sum(math.prod(_part_shape(leaf)) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def _part_shape(leaf: jax.Array | jax.ShapeDtypeStruct) -> tuple[int, ...]:
    if leaf.sharding is None:
        raise ValueError("every abstract array must have a sharding")
    return leaf.sharding.shard_shape(leaf.shape)
