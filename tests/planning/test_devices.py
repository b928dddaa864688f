import pytest

from flax_transformer.errors import InputError
from flax_transformer.planning.devices import DEVICES, find_device


def test_a_typo_gets_the_nearest_name():
    with pytest.raises(InputError, match=r"one of a100-40, .*'h20'.* Did you mean h200\?"):
        find_device("h20")


@pytest.mark.parametrize("name", DEVICES)
def test_links_are_slower_than_memory_and_faster_than_the_network(name):
    device = find_device(name)
    assert device.link_bandwidth < device.memory_bandwidth
    assert (device.network_bandwidth or 0.0) < device.link_bandwidth
    # A unit that is wrong by a thousand would show.
    assert 1e14 < device.peak_flops < 1e16
    assert 1e10 < device.memory_bytes < 1e12
