"""Whole encoder and decoder layers against NumPy written from the paper's formulas."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import numpy_reference
import pytest

from flax_transformer.nn.blocks import DecoderLayer, EncoderLayer
from flax_transformer.nn.layer_config import LayerConfig
from flax_transformer.nn.masks import make_causal_mask, make_padding_mask

B, T, S, D, N, H, F = 2, 5, 7, 11, 3, 13, 17

CONFIGS = {
    "post-norm": LayerConfig(
        model_dim=D, num_heads=N, head_dim=H, feed_forward_dim=F, dropout_rate=0.1
    ),
    "pre-norm": LayerConfig(
        model_dim=D,
        num_heads=N,
        head_dim=H,
        feed_forward_dim=F,
        activation="gelu",
        gated_feed_forward=True,
        pre_norm=True,
        norm_epsilon=0.01,
    ),
}


def make_params(layer, *args):
    """Draw parameters whose scales are not 1 and biases not 0, where a missing one would show."""
    shapes = jax.eval_shape(lambda: layer.init(jax.random.key(0), *args, deterministic=True))
    rng = np.random.default_rng(7)
    return jax.tree.map(
        lambda leaf: (
            jnp.asarray(0.5 + 0.3 * rng.normal(size=leaf.shape), leaf.dtype)
            if leaf.ndim == 1
            else jnp.asarray(0.3 * rng.normal(size=leaf.shape), leaf.dtype)
        ),
        shapes["params"],
    )


@functools.partial(jax.jit, static_argnums=0)
def run_layer(layer, params, *args):
    return layer.apply({"params": params}, *args, deterministic=True)


@pytest.fixture(scope="module", params=CONFIGS)
def config(request):
    return CONFIGS[request.param]


def test_an_encoder_layer_is_the_formulas(config):
    layer = EncoderLayer(config)
    states = jax.random.normal(jax.random.key(0), (B, S, D))
    is_token = np.arange(S)[None] < np.array([[4], [S]])
    mask = make_padding_mask(jnp.asarray(is_token))
    params = make_params(layer, states)
    outputs = run_layer(layer, params, states, mask)
    for b in range(B):
        expected = numpy_reference.encoder_layer(
            params, np.asarray(states[b]), np.broadcast_to(is_token[b], (S, S)), config
        )
        np.testing.assert_allclose(outputs[b], expected, atol=2e-5)


def test_a_decoder_layer_is_the_formulas(config):
    layer = DecoderLayer(config)
    states = jax.random.normal(jax.random.key(0), (B, T, D))
    encoded = jax.random.normal(jax.random.key(1), (B, S, D))
    is_token = np.arange(S)[None] < np.array([[4], [S]])
    masks = (make_causal_mask(T), make_padding_mask(jnp.asarray(is_token)))
    params = make_params(layer, states, encoded, *masks)
    outputs = run_layer(layer, params, states, encoded, *masks)
    past = np.tril(np.ones((T, T), bool))
    for b in range(B):
        expected = numpy_reference.decoder_layer(
            params,
            np.asarray(states[b]),
            np.asarray(encoded[b]),
            past,
            np.broadcast_to(is_token[b], (T, S)),
            config,
        )
        np.testing.assert_allclose(outputs[b], expected, atol=2e-5)


def test_dropout_of_a_sub_layer_leaves_the_residual_path():
    # Where everything that a pre-norm layer adds is dropped, its input is left.
    nearly_all = LayerConfig(
        model_dim=D,
        num_heads=N,
        head_dim=H,
        feed_forward_dim=F,
        pre_norm=True,
        dropout_rate=1 - 1e-9,
    )
    layer = EncoderLayer(nearly_all)
    states = jax.random.normal(jax.random.key(0), (B, S, D))
    params = make_params(layer, states)
    outputs = jax.jit(
        lambda key: layer.apply(
            {"params": params}, states, deterministic=False, rngs={"dropout": key}
        )
    )(jax.random.key(2))
    np.testing.assert_array_equal(outputs, states)


def test_parameters_have_the_names_that_checkpoints_store():
    layer = DecoderLayer(CONFIGS["post-norm"])
    states = jnp.zeros((B, T, D))
    shapes = jax.eval_shape(
        lambda: layer.init(
            jax.random.key(0), states, states, make_causal_mask(T), deterministic=True
        )
    )
    assert set(shapes["params"]) == {
        "self_attention",
        "self_attention_residual",
        "cross_attention",
        "cross_attention_residual",
        "feed_forward",
        "feed_forward_residual",
    }
    assert set(shapes["params"]["feed_forward_residual"]) == {"norm"}
