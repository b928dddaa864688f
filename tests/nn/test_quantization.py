"""Weights of eight bits against those that they stand for."""

import jax.numpy as jnp
import numpy as np
import pytest

from flax_transformer.nn.products import einsum
from flax_transformer.nn.quantization import Int8Weights, quantize, quantized_einsum

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(("shape", "num_in_axes"), [((7, 5), 1), ((7, 2, 5), 1), ((3, 2, 5), 2)])
def test_each_weight_is_rounded_by_half_a_step_at_most(shape, num_in_axes):
    weights = RNG.normal(size=shape).astype(np.float32)
    values, scales = quantize(jnp.asarray(weights), num_in_axes=num_in_axes)
    assert values.dtype == jnp.int8
    assert scales.shape == shape[num_in_axes:]
    error = np.abs(values * np.asarray(scales) - weights)
    assert (error <= 0.5001 * np.asarray(scales)).all()
    # The largest of each column uses all of the range.
    assert (np.abs(values).max(axis=tuple(range(num_in_axes))) == 127).all()


@pytest.mark.parametrize(
    ("equation", "left", "right", "num_in_axes"),
    [
        ("uwa,am->uwm", (2, 3, 7), (7, 5), 1),
        ("uwa,amn->uwmn", (2, 3, 7), (7, 2, 5), 1),
        ("uwab,abm->uwm", (2, 3, 4, 2), (4, 2, 5), 2),
    ],
)
def test_products_are_near_those_of_the_weights(equation, left, right, num_in_axes):
    inputs, weights = (RNG.normal(size=shape).astype(np.float32) for shape in (left, right))
    quantized = quantize(jnp.asarray(weights), num_in_axes=num_in_axes)
    expected = np.einsum(equation, inputs, weights)
    actual = einsum(
        equation, jnp.asarray(inputs), quantized, dtype="float32", result_dtype="float32"
    )
    assert actual.shape == expected.shape
    np.testing.assert_allclose(actual, expected, atol=0.03 * np.abs(expected).max())


def test_products_of_whole_numbers_are_exact():
    inputs, weights = RNG.integers(-126, 127, (3, 50)), RNG.integers(-126, 127, (50, 4))
    inputs[:, 0] = weights[0] = 127
    quantized = quantize(jnp.asarray(weights, jnp.float32), num_in_axes=1)
    np.testing.assert_array_equal(quantized.values, weights)
    actual = einsum(
        "ab,bc->ac",
        jnp.asarray(inputs, jnp.float32),
        quantized,
        dtype="float32",
        result_dtype="float32",
    )
    np.testing.assert_allclose(actual, inputs @ weights, rtol=1e-6)


def test_zeros_stay_zeros():
    quantized = quantize(jnp.zeros((3, 2)), num_in_axes=1)
    actual = einsum(
        "ab,bc->ac", jnp.ones((1, 3)), quantized, dtype="float32", result_dtype="float32"
    )
    np.testing.assert_array_equal(actual, 0.0)
    assert isinstance(quantized, Int8Weights)


def test_what_is_no_number_stays_in_sight():
    weights = quantize(jnp.asarray(RNG.normal(size=(4, 3)).astype("f")), num_in_axes=1)
    inputs = jnp.array([[jnp.nan, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    product = quantized_einsum("ab,bc->ac", inputs, weights)
    np.testing.assert_array_equal(np.isnan(product), [[True] * 3, [False] * 3, [False] * 3])
    spoilt = quantize(jnp.array([[1.0, jnp.nan], [2.0, 3.0]]), num_in_axes=1)
    product = quantized_einsum("ab,bc->ac", jnp.ones((1, 2)), spoilt)
    np.testing.assert_array_equal(np.isnan(product), [[False, True]])
