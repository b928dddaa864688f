"""How long a step takes at a device's published peaks: a bound, not a forecast."""

from collections.abc import Mapping
from typing import NamedTuple

from flax_transformer.errors import InputError
from flax_transformer.planning.devices import Device
from flax_transformer.planning.program_costs import Collective


class StepTime(NamedTuple):
    """Seconds of one step on one device, each part at its peak.

    Attributes:
        compute: products of matrices, at the peak of dense bfloat16 products.
        state_traffic: the state is read from memory and written back once.
        communication: what the device sends, at the bandwidth of the slowest way within the group.
    """

    compute: float
    state_traffic: float
    communication: float

    @property
    def overlapped(self) -> float:
        """Seconds if all three go on at once.

        >>> StepTime(compute=3.0, state_traffic=1.0, communication=2.0).overlapped
        3.0
        """
        return max(self)

    @property
    def serial(self) -> float:
        """Seconds if they wait for each other.

        >>> StepTime(compute=3.0, state_traffic=1.0, communication=2.0).serial
        6.0
        """
        return sum(self)


def estimate_step_time(
    flops: int, state_bytes: int, collectives: Mapping[Collective, int], device: Device
) -> StepTime:
    """Divide what one device does by the device's peaks.

    Args:
        flops: of the products of matrices.
        state_bytes: of the training state.
        collectives: how often each is run.
        device: the device.

    Raises:
        InputError: devices must talk beyond their domain, and the bandwidth there is not known.
    """
    communication = sum(
        times * each.sent_bytes / _bandwidth(each.group, device)
        for each, times in collectives.items()
    )
    return StepTime(
        compute=flops / device.peak_flops,
        state_traffic=2 * state_bytes / device.memory_bandwidth,
        communication=communication,
    )


def _bandwidth(group: tuple[int, ...], device: Device) -> float:
    """Return the bytes/s that a member of a group sends, devices numbered domain by domain."""
    if len({member // device.domain_size for member in group}) == 1:
        return device.link_bandwidth
    if device.network_bandwidth is None:
        raise InputError(
            f"mesh must have at most {device.domain_size} devices of the kind {device.name}, whose "
            "bandwidth beyond that is not published. Choose a smaller mesh or another device."
        )
    return device.network_bandwidth
