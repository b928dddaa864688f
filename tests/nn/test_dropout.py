"""The masks of dropout: their rate, their independence, and what they do not depend on."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flax_transformer.nn.dropout import Dropout, dropout, random_keep_mask

NUM_MASKS, ROWS, COLUMNS = 401, 37, 53


@pytest.fixture(scope="module")
def masks():
    """Masks of consecutive keys as ±1, [masks, rows, columns], of mean 0."""
    keys = jax.random.split(jax.random.key(0), NUM_MASKS)
    kept = jax.jit(jax.vmap(lambda key: random_keep_mask(key, 0.5, (ROWS, COLUMNS))))(keys)
    return np.where(np.asarray(kept), 1.0, -1.0)


def assert_uncorrelated(variables):
    """Off-diagonal correlations of [variables, samples] are within 5 standard errors of zero."""
    num_variables, num_samples = variables.shape
    correlations = np.corrcoef(variables)[np.triu_indices(num_variables, k=1)]
    assert np.abs(correlations).max() < 5 / np.sqrt(num_samples)
    # Squares of independent standard normals: their sum is chi-square distributed.
    chi_square = num_samples * np.sum(correlations**2)
    degrees = len(correlations)
    assert abs(chi_square - degrees) < 5 * np.sqrt(2 * degrees)


@pytest.mark.parametrize("keep_rate", [0.1, 0.5, 0.75, 0.9])
def test_masks_keep_the_rate(keep_rate):
    shape = (499, 1009)
    mask = random_keep_mask(jax.random.key(3), keep_rate, shape)
    for axis in (None, 0, 1):
        kept = np.asarray(mask).mean(axis)
        error = np.sqrt(keep_rate * (1 - keep_rate) / (mask.size / np.size(kept)))
        assert np.abs(kept - keep_rate).max() < 5 * error


def test_rows_are_independent(masks):
    assert_uncorrelated(masks.transpose(1, 0, 2).reshape(ROWS, -1))


def test_columns_are_independent(masks):
    assert_uncorrelated(masks.transpose(2, 0, 1).reshape(COLUMNS, -1))


def test_keys_are_independent(masks):
    assert_uncorrelated(masks.reshape(NUM_MASKS, -1))


def test_corners_of_rectangles_are_independent(masks):
    # A hash of row xor column is at risk of parity: four corners, two rows by two columns.
    for rows, columns in itertools.product([(0, 1), (2, 6), (5, 21)], [(0, 1), (8, 24), (3, 52)]):
        corners = masks[:, rows, :][:, :, columns].reshape(NUM_MASKS, 4)
        assert abs(corners.prod(-1).mean()) < 4 / np.sqrt(NUM_MASKS)


def test_no_two_rows_are_equal():
    mask = np.asarray(random_keep_mask(jax.random.key(4), 0.5, (3, 7, 101, 97)))
    rows = np.packbits(mask.reshape(-1, 97), axis=-1)
    assert len(np.unique(rows, axis=0)) == len(rows)


def test_a_mask_is_a_function_of_its_key():
    draw = [random_keep_mask(jax.random.key(seed), 0.5, (5, 67)) for seed in (0, 0, 1)]
    assert bool((draw[0] == draw[1]).all())
    assert not bool((draw[0] == draw[2]).all())


@pytest.mark.parametrize("spec", [("data",), (None, "data"), (None, None, "data")])
def test_a_mask_does_not_depend_on_sharding(spec):
    mesh = Mesh(np.array(jax.devices()[:8]), ("data",))
    shape = (8, 16, 24)

    def draw(key):
        return random_keep_mask(key, 0.7, shape)

    key = jax.random.key(5)
    sharding = NamedSharding(mesh, PartitionSpec(*spec))
    sharded = jax.jit(draw, out_shardings=sharding)(key)
    assert len(sharded.sharding.device_set) == 8
    np.testing.assert_array_equal(sharded, draw(key))


def test_dropout_keeps_the_expected_value():
    inputs = jnp.arange(1.0, 12.0)
    keys = jax.random.split(jax.random.key(6), 4001)
    dropped = np.asarray(jax.jit(jax.vmap(lambda key: dropout(inputs, 0.25, key)))(keys))
    zero = dropped == 0
    scaled = np.broadcast_to(inputs / 0.75, zero.shape)
    np.testing.assert_allclose(dropped[~zero], scaled[~zero], rtol=1e-6)
    np.testing.assert_allclose(dropped.mean(0) / inputs, 1.0, atol=5 * (0.25 / 0.75 / 4001) ** 0.5)


def test_dropout_keeps_the_dtype():
    assert dropout(jnp.ones((3, 5), jnp.bfloat16), 0.1, jax.random.key(0)).dtype == jnp.bfloat16


def test_nothing_is_dropped_when_deterministic_or_at_rate_zero():
    inputs = jax.random.normal(jax.random.key(0), (3, 5))
    # No key is given: none may be asked for.
    np.testing.assert_array_equal(Dropout(0.5).apply({}, inputs, deterministic=True), inputs)
    np.testing.assert_array_equal(Dropout(0.0).apply({}, inputs, deterministic=False), inputs)
    np.testing.assert_array_equal(dropout(inputs, 0.0, jax.random.key(0)), inputs)


def test_each_place_of_a_model_has_a_mask_of_its_own():
    class Twice(nn.Module):
        @nn.compact
        def __call__(self, inputs):
            same = Dropout(0.5, name="same")
            return jnp.stack(
                [
                    Dropout(0.5)(inputs, deterministic=False),
                    Dropout(0.5)(inputs, deterministic=False),
                    same(inputs, deterministic=False),
                    same(inputs, deterministic=False),
                ]
            )

    outputs = Twice().apply({}, jnp.ones((31, 71)), rngs={"dropout": jax.random.key(8)})
    assert_uncorrelated(np.asarray(outputs).reshape(4, -1))


def test_gradients_flow_through_what_is_kept():
    inputs, key = jnp.ones((7, 11)), jax.random.key(9)
    outputs = dropout(inputs, 0.5, key)
    gradient = jax.grad(lambda x: dropout(x, 0.5, key).sum())(inputs)
    np.testing.assert_array_equal(gradient, outputs)
