import pytest

from flax_transformer.errors import InputError
from flax_transformer.planning.devices import find_device
from flax_transformer.planning.program_costs import Collective
from flax_transformer.planning.step_time import estimate_step_time

H100, V4 = find_device("h100"), find_device("v4")


def communication(device, group):
    return estimate_step_time(0, 0, {Collective("all-gather", 10**9, group): 1}, device)


def test_within_a_domain_the_links_count_and_beyond_it_the_network():
    near = communication(H100, (0, 1, 2, 3)).communication
    far = communication(H100, (0, 8, 16, 24)).communication
    assert far / near == pytest.approx(H100.link_bandwidth / H100.network_bandwidth)


def test_each_part_is_its_work_over_its_peak():
    time = estimate_step_time(int(H100.peak_flops), int(H100.memory_bandwidth), {}, H100)
    assert time == pytest.approx((1.0, 2.0, 0.0))
    assert (time.overlapped, time.serial) == pytest.approx((2.0, 3.0))


def test_a_bandwidth_that_is_not_published_is_not_made_up():
    assert communication(V4, (0, 4095)).communication > 0.0
    with pytest.raises(InputError, match="at most 4096 devices"):
        communication(V4, (0, 4096))
