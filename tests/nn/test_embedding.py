"""Embeddings: look-up, scale, scores, and ids that do not exist."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_transformer.nn.embedding import Embedding, OutputProjection, score_tokens

V, D = 23, 7


@pytest.fixture(scope="module")
def table():
    return Embedding(V, D).init(jax.random.key(0), jnp.array([0]))


def test_embeddings_are_rows_times_the_root_of_their_size(table):
    tokens = jnp.array([[3, 0, 22], [22, 5, 3]])
    rows = table["params"]["embedding"][tokens]
    np.testing.assert_allclose(Embedding(V, D).apply(table, tokens), rows * D**0.5, rtol=1e-6)
    unscaled = Embedding(V, D, scale_by_sqrt_dim=False).apply(table, tokens)
    np.testing.assert_array_equal(unscaled, rows)


def test_scaled_embeddings_start_with_unit_variance():
    rows = Embedding(997, 101).init_with_output(jax.random.key(1), jnp.arange(997))[0]
    np.testing.assert_allclose(float(rows.std()), 1.0, atol=0.02)


def test_scores_are_products_with_every_row_unscaled(table):
    states = jax.random.normal(jax.random.key(2), (2, 3, D))
    logits = score_tokens(states, OutputProjection(table["params"]["embedding"]))
    expected = np.asarray(states) @ np.asarray(table["params"]["embedding"]).T
    np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_bfloat16_embeddings_have_float32_logits(table):
    module = Embedding(V, D, dtype=jnp.bfloat16)
    states = module.apply(table, jnp.array([[1, 2]]))
    assert states.dtype == jnp.bfloat16
    logits = score_tokens(
        states, OutputProjection(table["params"]["embedding"]), product_dtype=jnp.bfloat16
    )
    assert logits.dtype == jnp.float32


@pytest.mark.parametrize("outside", [-1, -V, V, V + 1, 2**31 - 1, -(2**31)])
def test_an_id_outside_the_vocabulary_gives_nan(table, outside):
    embedded = Embedding(V, D).apply(table, jnp.array([1, outside]))
    assert bool(jnp.isfinite(embedded[0]).all())
    assert bool(jnp.isnan(embedded[1]).all())


def test_rows_that_are_not_read_get_no_gradient(table):
    gradient = jax.grad(lambda p: Embedding(V, D).apply(p, jnp.array([4, 4, 9])).sum())(table)
    rows = np.asarray(gradient["params"]["embedding"])
    np.testing.assert_allclose(rows[4], 2 * D**0.5, rtol=1e-6)
    np.testing.assert_allclose(rows[9], D**0.5, rtol=1e-6)
    assert np.count_nonzero(rows.any(-1)) == 2
