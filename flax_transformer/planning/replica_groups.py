"""Which devices take part in a collective: the notations of a compiled program."""

import math
import re

import numpy as np

_LISTS = re.compile(r"replica_groups=\{\{([\d,]+)\}")
_PAIRS = re.compile(r"source_target_pairs=\{(.*?)\}\}")
_RANGE = re.compile(r"replica_groups=\[(\d+),(\d+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(
    r"replica_groups=mesh\[(?P<axes>[^\]]*)\]"
    r"(?:, device_ids=\((?:\[(?P<dims>[\d,]+)\](?:T\((?P<order>[\d,]+)\))?|(?P<ids>[\d,]+))\))?"
    r" \{(?P<split>[^}]*)\}"
)
_SPLIT_AXIS = re.compile(r"'([^']+)'(?::\((\d+)\)(\d+))?")


def first_group(attributes: str, num_devices: int) -> tuple[int, ...]:
    """Return the devices of the first group of a collective; the others have the same pattern.

    The notations are lists, a range that is reshaped and transposed, a mesh with the axes that its
    groups run along (or a part of an axis, ``'axis':(parts before)size``), and pairs of a source
    and a target, of which the first is taken that are two devices. Without groups all devices are
    one.

    Args:
        attributes: the text behind the operands of the instruction.
        num_devices: devices that run the program.

    Raises:
        ValueError: another notation.

    >>> first_group("replica_groups={{0,2},{1,3}}, use_global_device_ids=true", 4)
    (0, 2)
    >>> first_group("channel_id=1, replica_groups=[2,4]<=[4,2]T(1,0)", 8)
    (0, 2, 4, 6)
    >>> first_group("replica_groups=mesh['a'=4,'b'=2] {'a'}, to_apply=%add", 8)
    (0, 2, 4, 6)
    >>> first_group("replica_groups=mesh['a'=4,'b'=2], device_ids=([2,4]T(1,0)) {'b'}", 8)
    (0, 4)
    >>> first_group("replica_groups=mesh['a'=8] {'a':(2)2}", 8)
    (0, 2)
    >>> first_group("source_target_pairs={{0,0},{1,2},{2,1}}", 3)
    (1, 2)
    >>> first_group("replica_groups={}", 3)
    (0, 1, 2)
    """
    if match := _LISTS.search(attributes):
        return tuple(_integers(match[1]))
    if match := _RANGE.search(attributes):
        ids = _transposed_range(match[3], match[4])
        return tuple(ids.reshape(int(match[1]), int(match[2]))[0].tolist())
    if match := _MESH.search(attributes):
        return _first_along_axes(match)
    if match := _PAIRS.search(attributes):
        pairs = [tuple(_integers(pair)) for pair in re.findall(r"\d+,\d+", match[1])]
        return next((pair for pair in pairs if pair[0] != pair[1]), pairs[0][:1])
    if "replica_groups={}" in attributes or "replica_groups" not in attributes:
        return tuple(range(num_devices))
    raise ValueError(f"cannot read the devices of a collective: {attributes[:200]!r}")


def _first_along_axes(match: re.Match[str]) -> tuple[int, ...]:
    """Return the group of a mesh's first device, along the axes in ``match["split"]``."""
    sizes = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", match["axes"])}
    if match["ids"]:
        ids = np.asarray(_integers(match["ids"]))
    elif match["dims"]:
        ids = _transposed_range(match["dims"], match["order"])
    else:
        ids = np.arange(math.prod(sizes.values()))
    split = {name: (before, size) for name, before, size in _SPLIT_AXIS.findall(match["split"])}
    # Each axis is three: the parts before, the part itself, what is left of the axis.
    shape: list[int] = []
    index: list[slice | int] = []
    for name, size in sizes.items():
        before, part = split.get(name, ("", ""))
        parts_before = int(before) if before else 1
        part_size = int(part) if part else size
        shape += [parts_before, part_size, size // (parts_before * part_size)]
        index += [0, slice(None) if name in split else 0, 0]
    return tuple(ids.reshape(shape)[tuple(index)].ravel().tolist())


def _transposed_range(dims: str, order: str | None) -> np.ndarray:
    shape = _integers(dims)
    axes = _integers(order) if order else list(range(len(shape)))
    return np.arange(math.prod(shape)).reshape(shape).transpose(axes)


def _integers(text: str) -> list[int]:
    return [int(number) for number in text.split(",")]
