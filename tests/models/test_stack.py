"""Layers in a loop and in a scan, with and without rematerialisation: the same function."""

import chex
import jax
import jax.numpy as jnp
import pytest

from flax_transformer.models.stack import stack_layers, unstack_layers


@pytest.fixture(scope="module")
def value_and_gradient(pairs):
    """Return a function of a model and its parameters: the logits and a loss's gradient."""

    def value_and_gradient(tiny, params):
        def loss(params):
            logits = tiny.model.apply({"params": params}, *pairs[:3])
            return jax.nn.log_softmax(logits)[..., 3].sum(), logits

        (_, logits), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
        return logits, gradient

    return value_and_gradient


@pytest.fixture(scope="module")
def expected(value_and_gradient, tiny):
    return value_and_gradient(tiny, tiny.params)


def assert_close(actual, expected):
    chex.assert_trees_all_close(actual, expected, rtol=1e-4, atol=2e-5)


def test_rematerialisation_changes_nothing(make_tiny, tiny, value_and_gradient, expected):
    assert_close(value_and_gradient(make_tiny(remat=True), tiny.params), expected)


@pytest.mark.parametrize("remat", [False, True])
def test_a_scan_changes_nothing(make_tiny, tiny, value_and_gradient, expected, remat):
    scanned = make_tiny(scan_layers=True, remat=remat)
    params = stack_layers(tiny.params)
    chex.assert_trees_all_equal_shapes(params, scanned.params)
    logits, gradient = value_and_gradient(scanned, params)
    assert_close((logits, unstack_layers(gradient)), expected)


def test_stacking_and_unstacking_are_inverse(make_tiny, tiny):
    chex.assert_trees_all_equal(unstack_layers(stack_layers(tiny.params)), tiny.params)
    stacked = make_tiny(scan_layers=True).params
    chex.assert_trees_all_equal(stack_layers(unstack_layers(stacked)), stacked)
    chex.assert_trees_all_equal(unstack_layers(tiny.params), tiny.params)
    chex.assert_trees_all_equal(stack_layers(stacked), stacked)


def test_more_than_ten_layers_keep_their_order():
    # Sorted as text, "layers_10" would come before "layers_2".
    layers = {f"layers_{i}": {"kernel": jnp.array([i])} for i in range(11)}
    assert stack_layers(layers)["layers"]["kernel"][:, 0].tolist() == list(range(11))


def test_stacked_layers_start_different(make_tiny):
    model = make_tiny(scan_layers=True).model
    tokens = jnp.zeros((1, 1), int)
    params = jax.jit(model.init)(jax.random.key(0), tokens, tokens)["params"]
    kernel = params["decoder"]["layers"]["feed_forward"]["hidden"]["kernel"]
    assert not bool((kernel[0] == kernel[1]).any())
    assert float(kernel.std(axis=(1, 2)).max()) < 1.2 * float(kernel.std(axis=(1, 2)).min())


@pytest.mark.parametrize("remat", [False, True])
def test_scanned_layers_drop_different_elements(make_tiny, remat):
    # With the same masks in both layers, a key would drop the same in layers swapped or not.
    tiny = make_tiny(
        scan_layers=True, remat=remat, num_encoder_layers=2, num_decoder_layers=1, pre_norm=True
    )
    params = jax.tree.map(jnp.zeros_like, tiny.params)
    # Feed-forward networks that return ones, whatever they read: the encoder sums up its masks.
    output = params["encoder"]["layers"]["feed_forward"]["output"]
    output["bias"] = jnp.ones_like(output["bias"])
    states = jnp.zeros((7, 5, tiny.config.model_dim))
    encoder = tiny.model.bind({"params": params}, rngs={"dropout": jax.random.key(0)}).encoder

    del states, encoder
