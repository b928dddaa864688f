"""Streams of rows that run side by side, so that the batches do not depend on who reads them.

Each stream gives an equal block of the rows of every global batch. A process opens those streams
that its rows come from, and a position names each stream by its number: so what several processes
have saved can be put together and shared out anew among more of them, or fewer.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import grain
import numpy as np

from flax_transformer.data.batch import AnyBatch
from flax_transformer.errors import InputError

MakeItems = Callable[[Sequence[int], np.random.Generator], Sequence[AnyBatch]]
"""From the indices of a window, and a generator of its own, to rows or to batches."""

# A corpus with few usable pairs may have that many windows without any, beyond an epoch of them.
_MAX_EMPTY_WINDOWS = 100


def find_streams(
    num_rows: int, num_streams: int, *, part_index: int, part_count: int
) -> dict[int, slice]:
    """Return the streams that a part of the global batch comes from, and which of their rows.

    The batch has ``num_rows`` rows, which must be a multiple of ``num_streams`` and of
    ``part_count``; the part is number ``part_index`` of ``part_count`` equal blocks.

    >>> find_streams(8, 4, part_index=1, part_count=2)
    {2: slice(0, 2, None), 3: slice(0, 2, None)}
    >>> find_streams(8, 2, part_index=1, part_count=4)
    {0: slice(2, 4, None)}
    """
    size = num_rows // num_streams
    start = num_rows // part_count * part_index
    stop = start + num_rows // part_count
    return {
        stream: slice(max(start - stream * size, 0), min(stop - stream * size, size))
        for stream in range(start // size, math.ceil(stop / size))
    }


def unfold_stream(
    make_items: MakeItems,
    stream: int,
    *,
    num_streams: int,
    num_pairs: int,
    window_size: int,
    seed: int,
    num_threads: int,
) -> grain.IterDataset:
    """Return one of ``num_streams`` endless streams of what ``make_items`` makes of its windows.

    A window is a list of indices from 0 to ``num_pairs`` - 1, each of which the streams together
    have once an epoch. Windows are prepared in background threads. InputError ends the iteration
    when more than an epoch of windows in a row gives no item.
    """
    pair_ids = grain.MapDataset.range(num_pairs).seed(seed).shuffle().repeat()[stream::num_streams]
    # A window is no larger than an epoch, lest the rows of a small corpus repeat a pair.
    window_size = min(window_size, math.ceil(num_pairs / num_streams))
    window_seed = int(np.random.SeedSequence((seed, stream)).generate_state(1)[0])
    # Without drop_remainder, Grain's length of an endless stream overflows for windows of one.
    windows = pair_ids.batch(window_size, drop_remainder=True, batch_fn=list)
    windows = windows.random_map(make_items, seed=window_seed)
    options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=num_threads + 1)
    max_empty = math.ceil(num_pairs / window_size) + _MAX_EMPTY_WINDOWS
    return grain.experimental.FlatMapIterDataset(
        windows.to_iter_dataset(options), _Unfold(window_size, max_empty)
    )


class JoinedStreams(grain.IterDataset):
    """Batches whose rows come from several streams, in the order of their numbers.

    Args:
        streams: number to stream of batches.
    """

    def __init__(self, streams: Mapping[int, grain.IterDataset]) -> None:
        super().__init__(tuple(streams.values()))
        self._numbers = tuple(streams)

    def __iter__(self) -> grain.DatasetIterator:
        return _JoinedIterator(self._numbers, [iter(stream) for stream in self.parents])


class _JoinedIterator(grain.DatasetIterator):
    def __init__(self, numbers: Sequence[int], streams: Sequence[grain.DatasetIterator]) -> None:
        super().__init__(streams)
        # Strings, as they are when the position comes back from JSON.
        self._streams = {str(number): it for number, it in zip(numbers, streams, strict=True)}

    def __next__(self) -> AnyBatch:
        parts = [next(stream) for stream in self._streams.values()]
        if len(parts) == 1:
            return parts[0]
        return type(parts[0])(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))

    def get_state(self) -> dict[str, Any]:
        return {number: stream.get_state() for number, stream in self._streams.items()}

    def set_state(self, state: dict[str, Any]) -> None:
        if missing := [number for number in self._streams if number not in state]:
            raise InputError(
                f"the position in the data must hold streams {', '.join(self._streams)}, got none "
                f"for {', '.join(missing)}. Put together what all processes saved, or begin the "
                "data anew with --restart-data."
            )
        for number, stream in self._streams.items():
            stream.set_state(state[number])


class _Unfold(grain.experimental.FlatMapTransform):
    """Yield the items of a list one by one; give up after too many empty lists in a row."""

    max_fan_out = sys.maxsize

    def __init__(self, window_size: int, max_empty: int) -> None:
        self._window_size = window_size
        self._max_empty = max_empty
        self._num_empty = 0

    def flat_map(self, element: Sequence[AnyBatch]) -> Sequence[AnyBatch]:
        self._num_empty = 0 if element else self._num_empty + 1
        if self._num_empty > self._max_empty:
            raise InputError(
                "the training data must hold text of at most max_length tokens, got none in "
                f"{self._num_empty} windows of {self._window_size}. Raise max_length or set "
                "subword_regularization to 0."
            )
        return element
