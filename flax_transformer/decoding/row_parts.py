"""A batch in parts, which the cores of a CPU work at side by side.

The products of a step are small and the operations between them smaller, and cores share each of
them badly: two searches at a time use two cores better than one search does. Rows of like length
make a part, which is padded to the longest of them.
"""

import concurrent.futures
from collections.abc import Callable, Hashable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from flax_transformer.array_types import Array, Bool, Int
from flax_transformer.decoding.beam_state import BeamInputs
from flax_transformer.decoding.hypotheses import Hypotheses
from flax_transformer.decoding.length_buckets import bucket_length
from flax_transformer.parallel.threads import count_threads

_FEWEST_ROWS = 8
"""Of a part: the products of fewer are too small for one core."""

_PARTS_PER_CORE = 2
"""More parts than cores are padded less, and no core waits long for the last one."""


class BatchRows(NamedTuple):
    """What a search is given for each row of a batch; every array begins with the rows.

    Attributes:
        inputs: tokens of the sources or prompts, padded.
        mask: True on the tokens; None where there is no padding.
        row_numbers: what tells rows apart that draw random numbers.
        options: what each row asks for.
    """

    inputs: Int[Array | np.ndarray, "B S"]
    mask: Bool[Array | np.ndarray, "B S"] | None
    row_numbers: Int[Array | np.ndarray, " B"]
    options: BeamInputs


SearchFn: TypeAlias = Callable[[BatchRows], Hypotheses]

_COMPILED: set[Hashable] = set()
"""What has been searched before, so that its programs are compiled."""


def count_parts(num_rows: int, num_cores: int) -> int:
    """Return how many equal parts to make of a batch.

    >>> [count_parts(num_rows, 2) for num_rows in (1, 15, 16, 17, 24, 32, 64)]
    [1, 1, 2, 1, 3, 4, 4]
    """
    most = min(_PARTS_PER_CORE * num_cores, num_rows // _FEWEST_ROWS)
    return next((count for count in range(most, 1, -1) if num_rows % count == 0), 1)


def split_rows(
    rows: BatchRows, num_parts: int, *, trim: bool = True
) -> list[tuple[Int[np.ndarray, " C"], BatchRows]]:
    """Return the places of the rows of each part, and what they are given; longest rows first.

    With ``trim`` a part goes without the columns that are padding in all its rows.
    """
    rows = jax.tree.map(np.asarray, rows)
    order = np.arange(len(rows.inputs))
    if rows.mask is not None:
        order = np.argsort(-_widths(rows.mask), kind="stable")
    parts = (np.sort(places) for places in np.split(order, num_parts))
    taken = [(places, _take(rows, places)) for places in parts]
    return [(places, _trim(part)) for places, part in taken] if trim else taken


def search_parts(
    search: SearchFn, parts: list[tuple[Int[np.ndarray, " C"], BatchRows]], *, key: Hashable
) -> Hypotheses:
    """Search for the outputs of all parts, several parts at a time.

    Args:
        search: searches for the outputs of one part.
        parts: as from :func:`split_rows`.
        key: what the compiled programs of ``search`` depend on, besides the shapes of a part.
    """
    found: dict[int, Hypotheses] = {}
    for number, (_, rows) in enumerate(parts):
        program = (key, tuple(leaf.shape for leaf in jax.tree.leaves(rows)))
        if program not in _COMPILED:
            # Alone: several threads would each compile what the others do. (For long outputs they
            # still may: how many slots a cache keeps depends on what is found.)
            found[number] = search(rows)
            _COMPILED.add(program)
    with concurrent.futures.ThreadPoolExecutor(count_threads()) as pool:
        others = [number for number in range(len(parts)) if number not in found]
        found.update(zip(others, pool.map(lambda n: search(parts[n][1]), others), strict=True))
    outputs = [jax.device_get(found[number]) for number in range(len(parts))]
    order = np.argsort(np.concatenate([places for places, _ in parts]))
    return jax.tree.map(lambda *fields: jnp.asarray(np.concatenate(fields)[order]), *outputs)


def _widths(mask: Bool[Array | np.ndarray, "B S"]) -> Int[np.ndarray, " B"]:
    """Return how many columns each row needs."""
    mask = np.asarray(mask)
    return np.where(mask.any(axis=1), mask.shape[1] - np.argmax(mask[:, ::-1], axis=1), 1)


def _take(rows: BatchRows, places: Int[np.ndarray, " C"]) -> BatchRows:
    return jax.tree.map(lambda leaf: leaf[places], rows)


def _trim(rows: BatchRows) -> BatchRows:
    """Drop columns that are padding in all rows."""
    if rows.mask is None:
        return rows
    length = bucket_length(int(_widths(rows.mask).max()), rows.mask.shape[1])
    return rows._replace(inputs=rows.inputs[:, :length], mask=rows.mask[:, :length])
