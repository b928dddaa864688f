import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_transformer.nn.linear import Linear

INPUTS = jax.random.normal(jax.random.key(0), (2, 3, 5, 7))


@pytest.mark.parametrize("num_in_axes", [1, 2])
@pytest.mark.parametrize("features", [(11,), (11, 13)])
def test_a_linear_map_is_flax_own_with_the_same_parameters(num_in_axes, features):
    axes = tuple(range(-num_in_axes, 0))
    ours = Linear(features, num_in_axes=num_in_axes, use_bias=True)
    flax = nn.DenseGeneral(features, axis=axes, kernel_init=nn.initializers.xavier_uniform())
    outputs, variables = ours.init_with_output(jax.random.key(1), INPUTS)
    expected, others = flax.init_with_output(jax.random.key(1), INPUTS)
    for name, param in variables["params"].items():
        np.testing.assert_array_equal(param, others["params"][name])
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-5)


def test_products_may_have_fewer_bits_than_results():
    linear = Linear((11,), product_dtype=jnp.bfloat16)
    outputs, variables = linear.init_with_output(jax.random.key(1), INPUTS)
    assert outputs.dtype == jnp.float32
    exact = Linear((11,)).apply(variables, INPUTS)
    np.testing.assert_allclose(outputs, exact, atol=0.05)
    assert not np.array_equal(outputs, exact)
