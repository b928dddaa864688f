"""Whole encoder and decoder layers against NumPy written from the paper's formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import numpy_reference
import pytest

from flax_transformer.nn.blocks import DecoderLayer, EncoderLayer, LayerConfig
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


def perturb(params):
    """Move scales from 1 and biases from 0, where a missing one would not show."""
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(7), len(leaves))
    moved = [x + 0.2 * jax.random.normal(k, x.shape) for x, k in zip(leaves, keys, strict=True)]
    return jax.tree.unflatten(tree, moved)


@pytest.fixture(scope="module", params=CONFIGS)
def config(request):
    return CONFIGS[request.param]


def test_an_encoder_layer_is_the_formulas(config):
    layer = EncoderLayer(config)
    states = jax.random.normal(jax.random.key(0), (B, S, D))
    is_token = np.arange(S)[None] < np.array([[4], [S]])
    mask = make_padding_mask(jnp.asarray(is_token))
    params = perturb(layer.init(jax.random.key(1), states, deterministic=True)["params"])
    outputs = layer.apply({"params": params}, states, mask, deterministic=True)
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
    variables = layer.init(jax.random.key(2), states, encoded, *masks, deterministic=True)
    params = perturb(variables["params"])
    outputs = layer.apply({"params": params}, states, encoded, *masks, deterministic=True)
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
    params = layer.init(jax.random.key(1), states, deterministic=True)
    outputs = layer.apply(params, states, deterministic=False, rngs={"dropout": jax.random.key(2)})
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
