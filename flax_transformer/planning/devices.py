"""Published peaks of accelerators, by the names that ``plan --device`` takes."""

import difflib
from collections.abc import Mapping
from typing import NamedTuple

from flax_transformer.errors import InputError

_GIB = 2**30


class Device(NamedTuple):
    """What a vendor publishes of one accelerator (a GPU, a TPU chip).

    Attributes:
        name: in words.
        peak_flops: dense bfloat16 products of matrices, FLOP/s.
        memory_bytes: high-bandwidth memory.
        memory_bandwidth: of that memory, bytes/s.
        link_bandwidth: to the devices of the same domain, bytes/s in one direction, all links
            together.
        domain_size: devices that those links join: an NVLink domain, a TPU pod.
        network_bandwidth: beyond the domain, bytes/s in one direction, a device's share; None where
            the vendor gives none.
    """

    name: str
    peak_flops: float
    memory_bytes: int
    memory_bandwidth: float
    link_bandwidth: float
    domain_size: int
    network_bandwidth: float | None


# NVIDIA publishes NVLink as the sum of both directions, and products with sparsity, which are twice
# the dense ones. The network is that of the vendor's own servers of eight GPUs: one adapter a GPU.
# Google publishes the interconnect (ICI) as the sum of both directions, too.
DEVICES: Mapping[str, Device] = {
    # NVIDIA A100 Tensor Core GPU data sheet (SXM): 312 TFLOPS, 40 GB at 1,555 GB/s, 80 GB at
    # 2,039 GB/s, NVLink 600 GB/s. DGX A100 data sheet: 8 x 200 Gb/s.
    "a100-40": Device("NVIDIA A100 SXM 40 GB", 312e12, 40 * 10**9, 1.555e12, 300e9, 8, 25e9),
    "a100-80": Device("NVIDIA A100 SXM 80 GB", 312e12, 80 * 10**9, 2.039e12, 300e9, 8, 25e9),
    # NVIDIA H100 Tensor Core GPU data sheet (SXM): 1,979 TFLOPS with sparsity, 80 GB at 3.35 TB/s,
    # NVLink 900 GB/s. DGX H100 data sheet: 8 x 400 Gb/s.
    "h100": Device("NVIDIA H100 SXM 80 GB", 989.5e12, 80 * 10**9, 3.35e12, 450e9, 8, 50e9),
    # NVIDIA H200 Tensor Core GPU data sheet (SXM): as the H100, with 141 GB at 4.8 TB/s.
    "h200": Device("NVIDIA H200 SXM 141 GB", 989.5e12, 141 * 10**9, 4.8e12, 450e9, 8, 50e9),
    # NVIDIA HGX B200 data sheet, for eight: 36 PFLOPS with sparsity, NVLink 1.8 TB/s a GPU.
    # DGX B200 data sheet, for eight: 1,440 GB at 64 TB/s, 8 x 400 Gb/s.
    "b200": Device("NVIDIA B200 SXM 180 GB", 2.25e15, 180 * 10**9, 8e12, 900e9, 8, 50e9),
    # Cloud TPU documentation, "TPU v4": 275 TFLOPS, 32 GiB at 1,200 GB/s, 4,096 chips. Links:
    # Jouppi et al. (2023, arXiv 2304.01433), table 4: 6 of 50 GB/s.
    "v4": Device("Google TPU v4", 275e12, 32 * _GIB, 1.2e12, 300e9, 4096, None),
    # Cloud TPU documentation, "TPU v5e": 197 TFLOPS, 16 GB at 819 GB/s, ICI 400 GB/s, 256 chips,
    # which share 6.4 Tb/s of network.
    "v5e": Device("Google TPU v5e", 197e12, 16 * 10**9, 819e9, 200e9, 256, 3.125e9),
    # Cloud TPU documentation, "TPU v5p": 459 TFLOPS, 95 GiB at 2,765 GB/s, ICI 1,200 GB/s, 8,960
    # chips, network 50 Gb/s a chip.
    "v5p": Device("Google TPU v5p", 459e12, 95 * _GIB, 2.765e12, 600e9, 8960, 6.25e9),
    # Cloud TPU documentation, "TPU v6e": 918 TFLOPS, 32 GB at 1,638 GB/s, ICI 800 GB/s, 256 chips.
    "v6e": Device("Google TPU v6e", 918e12, 32 * 10**9, 1.638e12, 400e9, 256, None),
}


def find_device(name: str) -> Device:
    """Return the device called ``name``.

    Raises:
        InputError: there is none; the message gives the nearest name and all names.

    >>> find_device("h200").peak_flops
    989500000000000.0
    """
    if name in DEVICES:
        return DEVICES[name]
    nearest = difflib.get_close_matches(name, DEVICES, n=1)
    hint = f" Did you mean {nearest[0]}?" if nearest else ""
    raise InputError(f"device must be one of {', '.join(DEVICES)}, got {name!r}.{hint}")
