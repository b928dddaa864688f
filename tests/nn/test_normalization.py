"""Layer normalisation against the formula, and what it does not change with."""

import jax
import jax.numpy as jnp
import numpy as np
import numpy_reference
import pytest

from flax_transformer.nn.normalization import LayerNorm, layer_norm

T, D = 5, 11


@pytest.fixture(scope="module")
def case():
    keys = jax.random.split(jax.random.key(0), 3)
    inputs = jax.random.normal(keys[0], (T, D)) * 3 + 2
    return inputs, jax.random.normal(keys[1], (D,)), jax.random.normal(keys[2], (D,))


def test_layer_norm_is_the_formula(case):
    inputs, scale, bias = case
    expected = numpy_reference.layer_norm(
        {"scale": scale, "bias": bias}, np.asarray(inputs, np.float64), 0.01
    )
    np.testing.assert_allclose(layer_norm(inputs, scale, bias, epsilon=0.01), expected, atol=1e-5)


def test_shift_and_scale_of_the_inputs_do_not_matter(case):
    inputs, scale, bias = case
    np.testing.assert_allclose(
        layer_norm(inputs * 5 + 7, scale, bias, epsilon=1e-12),
        layer_norm(inputs, scale, bias, epsilon=1e-12),
        atol=1e-4,
    )


def test_equal_elements_give_the_bias_and_finite_gradients(case):
    _, scale, bias = case
    constant = jnp.full((T, D), 3.0)
    outputs, gradient = jax.value_and_grad(
        lambda x: layer_norm(x, scale, bias, epsilon=1e-6)[0, 0]
    )(constant)
    np.testing.assert_allclose(outputs, bias[0], atol=1e-6)
    assert bool(jnp.isfinite(gradient).all())


def test_statistics_of_bfloat16_are_taken_in_float32():
    # bfloat16 has 8 bits of mantissa: a running sum of 1s would stop at 256.
    inputs = jnp.tile(jnp.array([1.0, 3.0], jnp.bfloat16), 1000)[None]
    outputs = layer_norm(inputs, jnp.ones(2000), jnp.zeros(2000), epsilon=1e-6)
    assert outputs.dtype == jnp.bfloat16
    np.testing.assert_allclose(outputs[0, :2].astype(jnp.float32), [-1.0, 1.0], atol=1e-2)


def test_the_module_starts_as_plain_normalisation(case):
    inputs, _, _ = case
    outputs, variables = LayerNorm().init_with_output(jax.random.key(0), inputs)
    assert set(variables["params"]) == {"scale", "bias"}
    np.testing.assert_allclose(outputs.mean(-1), 0.0, atol=1e-5)
    np.testing.assert_allclose(outputs.std(-1), 1.0, atol=1e-4)
