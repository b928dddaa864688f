"""Orders in which the tiles of a table of attention are worked on.

The axes are those of :mod:`flax_transformer.nn.tile_passes`.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool

from flax_transformer.nn.tiles import Schedule


def split_evenly(length: int, max_size: int) -> tuple[int, int]:
    """Return the number and the size of the fewest tiles of at most ``max_size`` positions.

    >>> split_evenly(520, 512)
    (2, 260)
    """
    count = -(-length // max_size)
    return count, -(-length // count)


def schedule_pairs(
    row_tiles: tuple[int, int], column_tiles: tuple[int, int], *, causal: bool
) -> Schedule:
    """Bring each query tile together with each key tile, one pair a step.

    Args:
        row_tiles: number and size of the query tiles, which are groups of one.
        column_tiles: number and size of the key tiles.
        causal: leave out the pairs in which every key is later than every query.
    """
    (num_row_tiles, num_rows), (num_column_tiles, num_columns) = row_tiles, column_tiles
    row, column = np.indices((num_row_tiles, num_column_tiles), np.int32).reshape(2, -1)
    if causal:
        is_needed = column * num_columns < (row + 1) * num_rows
        row, column = row[is_needed], column[is_needed]
    return Schedule(jnp.asarray(row), jnp.asarray(column[:, None]))


def schedule_pattern(pattern: Bool[np.ndarray, "rows M"], tiles_per_group: int) -> Schedule:
    """Bring each query tile together with the key tiles that its row of ``pattern`` names.

    A group takes as many steps as its row with the most key tiles.

    >>> schedule_pattern(np.array([[True, False, False], [True, False, True]]), 2).key_tile
    Array([[0, 0],
           [3, 2]], dtype=int32)
    """
    num_rows, num_key_tiles = pattern.shape
    groups, key_tiles = [], []
    for first in range(0, num_rows, tiles_per_group):
        rows = pattern[first : first + tiles_per_group]
        steps = np.full((rows.sum(1).max(), tiles_per_group), num_key_tiles, np.int32)
        for position, row in enumerate(rows):
            chosen = np.flatnonzero(row)
            steps[: chosen.size, position] = chosen
        groups.append(np.full(len(steps), first // tiles_per_group, np.int32))
        key_tiles.append(steps)
    return Schedule(jnp.asarray(np.concatenate(groups)), jnp.asarray(np.concatenate(key_tiles)))
