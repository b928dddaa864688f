from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_transformer.checkpoints.averaging import average_parameters
from flax_transformer.errors import InputError


def make_tree(seed: int) -> dict[str, Any]:
    first, second = jax.random.split(jax.random.key(seed))
    return {
        "kernel": jax.random.normal(first, (3, 5)),
        "layers_0": {"bias": jax.random.normal(second, (7,)).astype(jnp.bfloat16)},
    }


def assert_same(actual: Any, expected: Any) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for left, right in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert left.dtype == right.dtype
        assert np.asarray(left).tobytes() == np.asarray(right).tobytes()


def test_average_of_equal_trees_is_that_tree() -> None:
    tree = make_tree(0)
    assert_same(average_parameters([tree]), tree)
    assert_same(average_parameters([tree] * 5), tree)


def test_average_is_the_mean_whatever_the_order() -> None:
    trees = [make_tree(seed) for seed in range(3)]
    average = average_parameters(iter(trees))
    assert_same(average, average_parameters(reversed(trees)))
    kernels = np.stack([tree["kernel"] for tree in trees]).astype(np.float64)
    np.testing.assert_array_equal(average["kernel"], kernels.mean(0).astype(np.float32))


def test_large_and_small_do_not_lose_precision() -> None:
    trees = [{"w": np.float32([big])} for big in (2.0**24, 1.0, -(2.0**24), 1.0)]
    np.testing.assert_array_equal(average_parameters(trees)["w"], np.float32([0.5]))


def test_the_trees_given_are_not_changed() -> None:
    trees = [{"w": np.float64([1.0])}, {"w": np.float64([3.0])}]
    average_parameters(trees)
    np.testing.assert_array_equal([trees[0]["w"], trees[1]["w"]], [[1.0], [3.0]])


def test_trees_that_differ_are_refused() -> None:
    with pytest.raises(InputError, match="at least one set of parameters, got none"):
        average_parameters([])
    with pytest.raises(InputError, match=r"w is float32\(2,\) instead of float32\(3,\)"):
        average_parameters([{"w": np.ones(3, np.float32)}, {"w": np.ones(2, np.float32)}])
    with pytest.raises(InputError, match="b is unexpected"):
        average_parameters([{"w": np.ones(3)}, {"w": np.ones(3), "b": np.ones(3)}])
