"""The average of several sets of parameters."""

from collections.abc import Iterable

import jax
import numpy as np

from flax_transformer.array_types import Parameters
from flax_transformer.errors import InputError
from flax_transformer.tree_paths import describe_differences, flatten_tree, shorten


def average_parameters(trees: Iterable[Parameters]) -> Parameters:
    """Average parameters leaf by leaf, as in "Attention Is All You Need" (section 6.1).

    Sums are kept in float64 on the host, and only one tree besides the sum is held at a time:
    `trees` may be a generator that reads checkpoints.

    Returns:
        A tree of NumPy arrays with the dtypes of the trees given.

    Raises:
        InputError: there is no tree, or two trees differ in a path, a shape or a dtype.

    >>> average_parameters([{"w": np.float32([1, 2])}, {"w": np.float32([3, 6])}])
    {'w': array([2., 4.], dtype=float32)}
    """
    remaining = iter(trees)
    first = next(remaining, None)
    if first is None:
        raise InputError("trees must hold at least one set of parameters, got none.")
    expected = flatten_tree(first)
    total = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), first)
    count = 1
    for tree in remaining:
        if differences := describe_differences(expected, flatten_tree(tree)):
            raise InputError(f"trees must agree, but {shorten(differences)}.")
        total = jax.tree.map(lambda sum_, leaf: sum_ + np.asarray(leaf, np.float64), total, tree)
        count += 1
    return jax.tree.map(lambda sum_, leaf: (sum_ / count).astype(leaf.dtype), total, first)
