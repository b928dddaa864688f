"""Attention against NumPy written from the paper's formulas, and its behaviour at the edges."""

import jax
import jax.numpy as jnp
import numpy as np
import numpy_reference
import pytest

from flax_transformer.nn.attention import MultiHeadAttention
from flax_transformer.nn.dot_product import (
    attention_weights,
    dot_product_attention,
    masked_softmax,
)
from flax_transformer.nn.kv_cache import init_key_values
from flax_transformer.nn.masks import make_ancestry_mask, make_causal_mask, make_padding_mask

B, T, S, N, H, D = 2, 5, 7, 3, 11, 13


@pytest.fixture(scope="module")
def rng():
    return np.random.default_rng(0)


@pytest.fixture(scope="module")
def qkv(rng):
    shapes = ((B, T, N, H), (B, S, N, H), (B, S, N, H))
    return tuple(jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes)


@pytest.fixture(scope="module")
def attend():
    """A multi-head attention, its parameters and two streams."""
    module = MultiHeadAttention(num_heads=N, head_dim=H, model_dim=D)
    keys = jax.random.split(jax.random.key(1), 3)
    x, y = jax.random.normal(keys[0], (B, T, D)), jax.random.normal(keys[1], (B, S, D))
    params = module.init(keys[2], x, y, deterministic=True)["params"]
    return module, params, x, y


@pytest.mark.parametrize("mask_shape", [(B, N, T, S), (B, 1, 1, S), (1, 1, T, S)])
def test_dot_product_attention_is_equation_1(qkv, rng, mask_shape):
    query, key, value = qkv
    mask = rng.random(mask_shape) < 0.6
    mask[0, 0, 0] = False
    outputs = dot_product_attention(query, key, value, jnp.asarray(mask))
    allowed = np.broadcast_to(mask, (B, N, T, S))
    for b in range(B):
        for n in range(N):
            expected = numpy_reference.attention(
                *(np.asarray(x[b, :, n], np.float64) for x in qkv), allowed[b, n]
            )
            np.testing.assert_allclose(outputs[b, :, n], expected, atol=1e-5)


def test_no_mask_is_a_mask_of_ones(qkv):
    everything = jnp.ones((1, 1, T, S), bool)
    np.testing.assert_array_equal(
        dot_product_attention(*qkv), dot_product_attention(*qkv, everything)
    )


def test_weights_sum_to_one_or_to_zero_where_nothing_is_allowed(qkv):
    mask = jnp.zeros((B, 1, T, S), bool).at[:, :, 1:, :3].set(True)
    sums = attention_weights(*qkv[:2], mask).sum(-1)
    np.testing.assert_allclose(sums[:, :, 1:], 1.0, atol=1e-6)
    np.testing.assert_array_equal(sums[:, :, 0], 0.0)


def test_a_query_without_keys_gets_zeros_and_finite_gradients(qkv):
    mask = jnp.zeros((B, 1, T, S), bool)
    np.testing.assert_array_equal(dot_product_attention(*qkv, mask), 0.0)
    gradients = jax.grad(lambda *args: dot_product_attention(*args, mask).sum(), argnums=(0, 1, 2))(
        *qkv
    )
    for gradient in gradients:
        np.testing.assert_array_equal(gradient, 0.0)


def test_huge_logits_do_not_overflow(qkv):
    query, key, value = qkv
    outputs = dot_product_attention(query * 1e6, key * 1e6, value)
    assert bool(jnp.isfinite(outputs).all())
    assert float(jnp.abs(outputs).max()) <= float(jnp.abs(value).max()) * (1 + 1e-6)


def test_bfloat16_operands_give_a_float32_softmax(qkv):
    low = tuple(x.astype(jnp.bfloat16) for x in qkv)
    weights = attention_weights(*low[:2])
    assert weights.dtype == jnp.float32
    np.testing.assert_allclose(weights.sum(-1), 1.0, atol=1e-6)
    outputs = dot_product_attention(*low)
    assert outputs.dtype == jnp.bfloat16
    np.testing.assert_allclose(outputs.astype(jnp.float32), dot_product_attention(*qkv), atol=0.05)
    assert masked_softmax(jnp.zeros((1, 1, 1, 2), jnp.bfloat16), None).dtype == jnp.float32


def test_dropout_of_weights_keeps_their_expected_sum(qkv):
    query, key, _ = qkv
    ones = jnp.ones((B, S, N, H))
    sums = jax.jit(
        jax.vmap(lambda k: dot_product_attention(query, key, ones, dropout_rate=0.3, dropout_key=k))
    )(jax.random.split(jax.random.key(2), 2000))
    assert float(jnp.std(sums)) > 0.1
    np.testing.assert_allclose(sums.mean(0), 1.0, atol=0.08)


def test_cross_attention_is_the_formula(attend, rng):
    module, params, x, y = attend
    is_token = np.arange(S)[None] < np.array([[3], [S]])
    outputs = module.apply(
        {"params": params}, x, y, make_padding_mask(jnp.asarray(is_token)), deterministic=True
    )
    for b in range(B):
        expected = numpy_reference.multi_head_attention(
            params, np.asarray(x[b]), np.asarray(y[b]), np.broadcast_to(is_token[b], (T, S))
        )
        np.testing.assert_allclose(outputs[b], expected, atol=1e-5)


def test_masked_self_attention_is_the_formula(attend):
    module, params, x, _ = attend
    outputs = module.apply({"params": params}, x, x, make_causal_mask(T), deterministic=True)
    past = np.tril(np.ones((T, T), bool))
    for b in range(B):
        inputs = np.asarray(x[b])
        expected = numpy_reference.multi_head_attention(params, inputs, inputs, past)
        np.testing.assert_allclose(outputs[b], expected, atol=1e-5)


def test_projections_are_plain_arrays_of_heads(attend):
    _, params, _, _ = attend
    shapes = jax.tree.map(jnp.shape, params)
    to_heads = {"kernel": (D, N, H)}
    assert shapes == {
        "query": to_heads,
        "key": to_heads,
        "value": to_heads,
        "output": {"kernel": (N, H, D)},
    }


def test_projections_start_as_if_heads_were_one_matrix(attend):
    # Glorot and Bengio's bound for a matrix [D, N * H], not for N matrices [D, H].
    _, params, _, _ = attend
    bound = (6 / (D + N * H)) ** 0.5
    for name in ("query", "key", "value", "output"):
        largest = float(jnp.abs(params[name]["kernel"]).max())
        assert 0.9 * bound < largest <= bound


def test_attention_to_a_cache_is_attention(attend):
    module, params, x, y = attend
    is_token = jnp.arange(S)[None] < jnp.array([[3], [S]])
    mask = make_padding_mask(is_token)
    cache = module.apply({"params": params}, y, method="make_key_values")
    np.testing.assert_allclose(
        module.apply({"params": params}, x, cache, mask, method="attend_to_cache"),
        module.apply({"params": params}, x, y, mask, deterministic=True),
        atol=1e-6,
    )


def test_a_cache_filled_step_by_step_is_masked_self_attention(attend):
    module, params, x, _ = attend
    expected = module.apply({"params": params}, x, x, make_causal_mask(T), deterministic=True)
    cache = init_key_values(B, N, H, T, dtype=jnp.float32)
    ancestry = jnp.zeros((B, 1, T), int)
    for t in range(T):
        step, index = x[:, t : t + 1], jnp.array(t)
        cache = module.apply({"params": params}, step, cache, index, method="extend_cache")
        outputs = module.apply(
            {"params": params},
            step,
            cache,
            make_ancestry_mask(ancestry, index),
            method="attend_to_cache",
        )
        np.testing.assert_allclose(outputs, expected[:, t : t + 1], atol=1e-6)
