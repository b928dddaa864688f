"""Relative position bias: buckets by their definition, and what the bias depends on."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_transformer.nn.relative_position import RelativePositionBias, relative_bucket


def bucket_of(distance, num_buckets, max_distance, bidirectional):
    """Section 2.1 of arXiv 1910.10683, for one distance."""
    first = 0
    if bidirectional:
        num_buckets //= 2
        first = num_buckets if distance > 0 else 0
        distance = abs(distance)
    else:
        distance = max(-distance, 0)
    num_exact = num_buckets // 2
    if distance < num_exact:
        return first + distance
    fraction = math.log(distance / num_exact) / math.log(max_distance / num_exact)
    return first + min(num_exact + int(fraction * (num_buckets - num_exact)), num_buckets - 1)


# No distance lies on the edge of a bucket, where float32 and float64 may differ.
@pytest.mark.parametrize(("num_buckets", "max_distance"), [(8, 21), (32, 127)])
@pytest.mark.parametrize("bidirectional", [True, False])
def test_buckets_are_those_of_the_paper(num_buckets, max_distance, bidirectional):
    distances = np.arange(-150, 151)
    buckets = relative_bucket(
        jnp.asarray(distances),
        num_buckets=num_buckets,
        max_distance=max_distance,
        bidirectional=bidirectional,
    )
    expected = [bucket_of(d, num_buckets, max_distance, bidirectional) for d in distances.tolist()]
    np.testing.assert_array_equal(buckets, expected)
    # Bucket 0 of the second half would be a distance of 0 after the query: it is never used.
    assert set(expected) == set(range(num_buckets)) - (
        {num_buckets // 2} if bidirectional else set()
    )


def test_the_bias_depends_on_the_distance_alone():
    module = RelativePositionBias(3, 8, 20, bidirectional=True)
    table = jax.random.normal(jax.random.key(0), (8, 3))
    positions = jnp.arange(7)[None]

    def bias(queries, keys):
        return module.apply({"params": {"embedding": table}}, queries, keys)

    whole = bias(positions, positions)
    assert whole.shape == (1, 3, 7, 7)
    np.testing.assert_array_equal(whole, bias(positions + 5, positions + 5))
    np.testing.assert_array_equal(whole[:, :, 4:5], bias(jnp.array([[4]]), positions))
    np.testing.assert_array_equal(whole[0, :, 2, 3], whole[0, :, 5, 6])
    np.testing.assert_array_equal(whole[0, :, 2, 3], table[5])
