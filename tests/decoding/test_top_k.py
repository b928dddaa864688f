"""The k largest by blocks are those of a whole sort, ties included."""

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flax_transformer.decoding.top_k import top_k

# Around one, two and three blocks of 64, and more.
SIZES = (1, 64, 65, 128, 193, 700)

# Few different values: many ties, also between blocks.
values = st.sampled_from([-np.inf, -1.5, 0.25, 0.5, 7.0])

sort_blocks = jax.jit(top_k, static_argnums=1)
sort_all = jax.jit(jax.lax.top_k, static_argnums=1)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_equal_to_a_whole_sort(data):
    size = data.draw(st.sampled_from(SIZES))
    k = data.draw(st.sampled_from([k for k in (1, 3) if k <= size]))
    rows = data.draw(arrays(np.float32, (2, size), elements=values))
    best, indices = sort_blocks(rows, k)
    expected, expected_indices = sort_all(rows, k)
    np.testing.assert_array_equal(best, expected)
    np.testing.assert_array_equal(indices, expected_indices)


@pytest.mark.parametrize("size", [64, 193])
def test_a_row_of_equal_values_gives_the_first(size):
    k = 3
    for value in (0.0, -np.inf):
        best, indices = sort_blocks(np.full((size,), value, np.float32), k)
        np.testing.assert_array_equal(best, [value] * k)
        np.testing.assert_array_equal(indices, range(k))


def test_leading_dimensions_are_independent():
    rows = np.random.default_rng(0).normal(size=(2, 3, 333)).astype(np.float32)
    best, indices = sort_blocks(rows, 4)
    assert best.shape == indices.shape == (2, 3, 4)
    np.testing.assert_array_equal(np.take_along_axis(rows, np.asarray(indices), -1), best)
    np.testing.assert_array_equal(best, -np.sort(-rows, -1)[..., :4])


def test_all_of_a_short_row_are_sorted():
    rows = np.random.default_rng(1).normal(size=(130,)).astype(np.float32)
    np.testing.assert_array_equal(sort_blocks(rows, 130)[0], -np.sort(-rows))


def test_a_missing_number_comes_first():
    rows = np.zeros((1, 200), np.float32)
    rows[0, 137] = np.nan
    assert sort_blocks(rows, 1)[1].tolist() == [[137]]
