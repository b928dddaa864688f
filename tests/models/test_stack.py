"""Layers in a loop and in a scan, with and without rematerialisation: the same function."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_transformer.models.stack import Encoder, stack_layers, unstack_layers

SIZES = {"num_encoder_layers": 2, "num_decoder_layers": 1}


@pytest.fixture(scope="module")
def looped(make_tiny):
    return make_tiny(**SIZES)


@pytest.fixture(scope="module")
def forward_and_gradient(pairs):
    """Return a function of a model and its parameters: its logits and the gradient of a loss."""

    def forward_and_gradient(model, params):
        def loss(params):
            logits = model.apply({"params": params}, *pairs[:3])
            return jax.nn.log_softmax(logits)[..., 3].sum(), logits

        (_, logits), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)
        return logits, gradient

    return forward_and_gradient


@pytest.fixture(scope="module")
def expected(forward_and_gradient, looped):
    return forward_and_gradient(looped.model, looped.params)


def assert_close(actual, expected):
    chex.assert_trees_all_close(actual, expected, rtol=1e-4, atol=5e-5)


@pytest.mark.parametrize("remat", ["full", "dots", "dots_no_batch"])
def test_rematerialisation_changes_nothing(
    make_tiny, looped, forward_and_gradient, expected, remat
):
    model = make_tiny(remat=remat, **SIZES).model
    assert_close(forward_and_gradient(model, looped.params), expected)


@pytest.mark.parametrize("remat", ["none", "full"])
def test_a_scan_changes_nothing(make_tiny, looped, forward_and_gradient, expected, remat):
    scanned = make_tiny(scan_layers=True, remat=remat, **SIZES)
    params = stack_layers(looped.params)
    chex.assert_trees_all_equal_shapes(params, scanned.params)
    logits, gradient = forward_and_gradient(scanned.model, params)
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
    config = make_tiny(scan_layers=True, **SIZES).config
    states = jnp.zeros((1, 1, config.model_dim))
    params = Encoder(config, config.num_encoder_layers).init(
        jax.random.key(0),
        states,
        None,
        positions=jnp.arange(states.shape[1])[None],
        deterministic=True,
    )["params"]
    kernel = params["layers"]["feed_forward"]["hidden"]["kernel"]
    assert not bool((kernel[0] == kernel[1]).any())
    assert float(kernel.std(axis=(1, 2)).max()) < 1.2 * float(kernel.std(axis=(1, 2)).min())


@pytest.mark.parametrize("scan_layers", [False, True])
@pytest.mark.parametrize("remat", ["none", "full"])
def test_every_layer_drops_with_a_mask_of_its_own(make_tiny, scan_layers, remat):
    config = make_tiny(
        scan_layers=scan_layers,
        remat=remat,
        num_encoder_layers=2,
        pre_norm=True,
        dropout_rate=0.5,
    ).config
    encoder = Encoder(config, config.num_encoder_layers)
    states = jnp.zeros((3, 5, config.model_dim))
    shapes = jax.eval_shape(
        lambda: encoder.init(
            jax.random.key(0),
            states,
            None,
            positions=jnp.arange(states.shape[1])[None],
            deterministic=True,
        )
    )["params"]
    # Every feed-forward network returns ones, every attention zeros: the layers count how often an
    # element was kept. The final normalisation moves the counts but keeps them apart.
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.full(
            leaf.shape, float("feed_forward'" in str(path) or path[0].key == "final_norm")
        ),
        shapes,
    )
    outputs = jax.jit(
        lambda key: encoder.apply(
            {"params": params},
            states,
            None,
            positions=jnp.arange(states.shape[1])[None],
            deterministic=False,
            rngs={"dropout": key},
        )
    )(jax.random.key(0))
    for row in np.asarray(outputs).reshape(-1, config.model_dim):
        assert len(np.unique(row.round(3))) == 3
