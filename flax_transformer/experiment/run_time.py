"""How long a run took, by the times in its TensorBoard events."""

import struct
from collections.abc import Iterator
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event

from flax_transformer.run_layout import TENSORBOARD_DIRECTORY

_LENGTH_BYTES, _CHECKSUM_BYTES = 8, 4


def measure_run_time(workdir: Path) -> float | None:
    """Return the seconds from the first to the last event of each attempt, summed up.

    An attempt that was interrupted counts until its last event. None where there is no record.
    """
    paths = sorted((workdir / TENSORBOARD_DIRECTORY).glob("events.out.tfevents.*"))
    times = [list(_read_times(path)) for path in paths]
    return sum(max(each) - min(each) for each in times if each) if any(times) else None


def _read_times(path: Path) -> Iterator[float]:
    """Yield the time of each whole event; a file may end in a part of one, or in zeros."""
    content = path.read_bytes()
    start = 0
    while start + _LENGTH_BYTES + _CHECKSUM_BYTES <= len(content):
        (length,) = struct.unpack_from("<Q", content, start)
        start += _LENGTH_BYTES + _CHECKSUM_BYTES
        if start + length > len(content):
            return
        time = Event.FromString(content[start : start + length]).wall_time
        if not (length and time):
            return
        yield time
        start += length + _CHECKSUM_BYTES
