"""The position of all processes in the data, one stored file each, as one position.

The position of one process's batches is ``{"position": {stream: state, ...}, "stream": ...}``: the
states of the streams of rows that it reads, by their numbers, and what they are streams of. Each
process finds the streams that it is to read now among those of all, so their number may change.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grain

from flax_transformer.errors import InputError


def merge_positions(positions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Unite the streams of several processes; what else they hold must be the same in all.

    Raises:
        InputError: two processes have read different data, or their positions are not by stream.

    >>> merge_positions([{"position": {"0": 5}}, {"position": {"1": 6}}])
    {'position': {'0': 5, '1': 6}}
    """
    first, *others = positions
    merged = dict(first)
    for other in others:
        if not all("position" in position for position in (merged, other)):
            raise InputError("positions of several processes must be by stream, got others.")
        if {**other, "position": None} != {**merged, "position": None}:
            raise InputError("all processes must have read the same data, got different data.")
        merged["position"] = {**merged["position"], **other["position"]}
    return merged


def restore_position(directory: Path, batches: grain.DatasetIterator) -> None:
    """Set `batches` to the position that Grain's checkpoint handlers stored in `directory`.

    Raises:
        OSError: a file cannot be read.
        json.JSONDecodeError: a file is not JSON.
        InputError: the position belongs to other data; `batches` may raise other errors.
    """
    paths = sorted(directory.glob("process_*-of-*.json"))
    if not paths:
        raise FileNotFoundError(f"no position in {directory}")
    batches.set_state(merge_positions([json.loads(path.read_bytes()) for path in paths]))
    batches.start_prefetch()
