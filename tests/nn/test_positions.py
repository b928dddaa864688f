"""Position encodings against the formula of section 3.5 and by what the paper says of them."""

import jax
import jax.numpy as jnp
import numpy as np
import numpy_reference
import pytest

from flax_transformer.nn.positions import LearnedPositions, SinusoidalPositions, sinusoidal_table

P, D = 13, 22


@pytest.mark.parametrize("layout", ["interleaved", "halves"])
def test_sinusoids_are_the_formula(layout):
    expected = [numpy_reference.sinusoid(position, D, layout) for position in range(P)]
    np.testing.assert_allclose(sinusoidal_table(P, D, layout=layout), expected, atol=1e-6)


def test_layouts_hold_the_same_numbers():
    interleaved = sinusoidal_table(P, D, layout="interleaved")
    halves = sinusoidal_table(P, D, layout="halves")
    np.testing.assert_array_equal(np.hstack([interleaved[:, 0::2], interleaved[:, 1::2]]), halves)


def test_products_of_encodings_depend_on_distance_only():
    table = sinusoidal_table(P, D, layout="interleaved")
    products = table @ table.T
    for distance in range(P):
        np.testing.assert_allclose(np.diff(np.diagonal(products, distance)), 0.0, atol=1e-5)


def test_encodings_of_late_positions_are_accurate():
    late = sinusoidal_table(5001, 6, layout="halves")[5000]
    np.testing.assert_allclose(late, numpy_reference.sinusoid(5000, 6, "halves"), atol=1e-6)


def test_an_odd_size_is_refused():
    with pytest.raises(ValueError, match=r"dim must be even .* got 5"):
        sinusoidal_table(P, 5, layout="halves")


@pytest.fixture(scope="module", params=[SinusoidalPositions, LearnedPositions])
def encode(request):
    module = request.param(P, D)
    variables = module.init(jax.random.key(0), jnp.arange(P))
    return lambda positions: module.apply(variables, positions)


def test_positions_are_looked_up_in_any_order(encode):
    positions = jnp.array([[5, 0, 3], [3, 12, 5]])
    encodings = encode(positions)
    table = encode(jnp.arange(P))
    assert encodings.shape == (2, 3, D)
    assert encodings.dtype == jnp.float32
    np.testing.assert_array_equal(encodings, table[positions])
    assert len(np.unique(table, axis=0)) == P


@pytest.mark.parametrize("outside", [-1, P, P + 1, -P - 1, 2**31 - 1, -(2**31)])
def test_a_position_outside_the_table_gives_nan(encode, outside):
    encodings = encode(jnp.array([1, outside]))
    assert bool(jnp.isfinite(encodings[0]).all())
    assert bool(jnp.isnan(encodings[1]).all())
