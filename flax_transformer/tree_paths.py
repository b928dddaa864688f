"""Name the leaves of a tree of arrays, and say where two trees differ."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np


def flatten_tree(tree: Any) -> dict[str, Any]:
    """Map the path of each leaf, joined by ``/``, to the leaf.

    Dataclasses, named tuples, tuples and mappings all contribute a component of the path: the
    field, the index or the key.

    >>> flatten_tree({"layers": {"kernel": 1}, "scales": (2, 3)})
    {'layers/kernel': 1, 'scales/0': 2, 'scales/1': 3}
    """
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {join_path(path): leaf for path, leaf in leaves}


def join_path(path: jax.tree_util.KeyPath) -> str:
    """Return the components of a leaf's path, joined by ``/``."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def unflatten_tree(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Build nested dictionaries from leaves named by paths; the inverse for trees of mappings.

    >>> unflatten_tree({"layers/kernel": 1, "layers/bias": 2, "scale": 3})
    {'layers': {'kernel': 1, 'bias': 2}, 'scale': 3}
    """
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def describe_differences(expected: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """List the leaves that are missing, unexpected, or of another shape or dtype.

    Args:
        expected: arrays, or stand-ins with ``shape`` and ``dtype``, named by their paths.
        found: likewise, what is there.

    Returns:
        One phrase for each difference, wrong shapes first; empty if the two agree.

    >>> describe_differences({"w": np.zeros((2, 3)), "b": np.zeros(3)}, {"w": np.zeros((3, 2))})
    ['w is float64(3, 2) instead of float64(2, 3)', 'b is missing']
    """
    wrong = [
        f"{path} is {_signature(found[path])} instead of {_signature(leaf)}"
        for path, leaf in expected.items()
        if path in found and _signature(found[path]) != _signature(leaf)
    ]
    missing = [f"{path} is missing" for path in expected if path not in found]
    unexpected = [f"{path} is unexpected" for path in found if path not in expected]
    return wrong + missing + unexpected


def shorten(phrases: list[str], limit: int = 4) -> str:
    """Join the first phrases and count the rest, for a message of one line.

    >>> shorten(["a", "b", "c"], limit=2)
    'a, b, and 1 more'
    """
    rest = [f"and {len(phrases) - limit} more"] if len(phrases) > limit else []
    return ", ".join(phrases[:limit] + rest)


def _signature(leaf: Any) -> str:
    """Dtype and shape, as ``float32(2, 3)``."""
    return f"{np.dtype(leaf.dtype).name}{tuple(leaf.shape)}"
