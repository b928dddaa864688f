"""What training by a config on a mesh of devices would take: memory, work, traffic, time."""

import math
from collections.abc import Mapping
from typing import NamedTuple

from jax.sharding import Mesh

from flax_transformer.config import ExperimentConfig
from flax_transformer.models.parameters import num_parameters
from flax_transformer.planning.compiled_step import compile_step
from flax_transformer.planning.devices import Device
from flax_transformer.planning.hlo import parse_module
from flax_transformer.planning.memory import MemoryUse, bytes_per_device, measure_memory
from flax_transformer.planning.program_costs import COLLECTIVES, Collective, count_costs
from flax_transformer.planning.step_time import StepTime, estimate_step_time


class Traffic(NamedTuple):
    """What one device does of one kind of collective in a step.

    Attributes:
        num_runs: how many there are, each loop counted as often as it runs.
        sent_bytes: what the device sends by the ring algorithm; see Collective.sent_bytes.
        result_bytes: of their results.
    """

    num_runs: int
    sent_bytes: float
    result_bytes: int


class Plan(NamedTuple):
    """One training step, of all devices where nothing else is said.

    Attributes:
        device: the kind of device.
        mesh_shape: devices along each axis of the mesh.
        product_dtype: of the operands of products of matrices.
        num_parameters: of the model, frozen or not, and of its adapters.
        num_trained: those of them that are trained.
        num_rows: rows of the global batch.
        row_length: positions of a row, of each side.
        memory: bytes of one device.
        device_flops: products of matrices that one device computes, those included that are
            computed again for the backward pass.
        traffic: of one device, by kind of collective.
        time: at the device's peaks.
        unknown_loops: loops of the program whose number of rounds is not known; counted once.
    """

    device: Device
    mesh_shape: Mapping[str, int]
    product_dtype: str
    num_parameters: int
    num_trained: int
    num_rows: int
    row_length: int
    memory: MemoryUse
    device_flops: int
    traffic: Mapping[str, Traffic]
    time: StepTime
    unknown_loops: tuple[str, ...]

    @property
    def num_devices(self) -> int:
        """Devices of the mesh."""
        return math.prod(self.mesh_shape.values())

    @property
    def num_tokens(self) -> int:
        """Target positions of a batch, padding included."""
        return self.num_rows * self.row_length

    @property
    def model_flops(self) -> int:
        """Six for each parameter and target position: 2 forward, 4 backward.

        Of a frozen one four, since it gets no gradient. That is an upper bound: backward, nothing
        at all is computed of frozen layers below all that are trained.
        """
        return (4 * self.num_parameters + 2 * self.num_trained) * self.num_tokens

    @property
    def fits(self) -> bool:
        """Whether the step needs no more memory than the device has."""
        return self.memory.total <= self.device.memory_bytes

    def utilization(self, seconds: float) -> float:
        """Return the share of all devices' peaks that the model's FLOPs make up (MFU)."""
        return self.model_flops / (seconds * self.num_devices * self.device.peak_flops)


def make_plan(config: ExperimentConfig, mesh: Mesh, device: Device) -> Plan:
    """Compile the training step of ``config`` for ``mesh``, and read the plan off it.

    Args:
        config: the experiment; its own mesh is not used.
        mesh: simulated devices will do; nothing is allocated on them.
        device: what they stand for.

    Raises:
        InputError: the parameters or the batch do not fit the mesh.
    """
    step = compile_step(config, mesh)
    costs = count_costs(parse_module(step.executable.as_text() or ""))
    return Plan(
        device=device,
        mesh_shape=dict(mesh.shape),
        product_dtype=config.model.product_dtype or config.model.compute_dtype,
        num_parameters=num_parameters(step.state.params),
        num_trained=num_parameters(step.trained),
        num_rows=step.batch_shape.num_rows,
        row_length=step.batch_shape.row_length,
        memory=measure_memory(step),
        device_flops=costs.flops,
        traffic=sum_traffic(costs.collectives),
        time=estimate_step_time(
            costs.flops, bytes_per_device(step.state), costs.collectives, device
        ),
        unknown_loops=tuple(sorted(costs.unknown_loops)),
    )


def sum_traffic(collectives: Mapping[Collective, int]) -> dict[str, Traffic]:
    """Add up collectives by their kind.

    >>> sum_traffic({Collective("all-reduce", 8, (0, 1)): 3})["all-reduce"]
    Traffic(num_runs=3, sent_bytes=24.0, result_bytes=24)
    """
    totals = dict.fromkeys(COLLECTIVES, Traffic(0, 0.0, 0))
    for each, times in collectives.items():
        total = totals[each.kind]
        totals[each.kind] = Traffic(
            total.num_runs + times,
            total.sent_bytes + times * each.sent_bytes,
            total.result_bytes + times * each.result_bytes,
        )
    return totals
