"""The feed-forward network against NumPy written from the formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import numpy_reference
import pytest

from flax_transformer.nn.feed_forward import ACTIVATIONS, FeedForward

B, T, D, F = 2, 5, 7, 17


@pytest.mark.parametrize(
    ("gated", "use_bias"),
    [(False, True), (True, False), (True, True)],
    ids=["plain", "gated", "gated-bias"],
)
@pytest.mark.parametrize("activation", ["relu", "gelu", "gelu_tanh", "silu"])
def test_feed_forward_is_the_formula(activation, gated, use_bias):
    module = FeedForward(F, activation=activation, gated=gated, use_bias=use_bias)
    inputs = jax.random.normal(jax.random.key(0), (B, T, D)) * 2
    params = module.init(jax.random.key(1), inputs, deterministic=True)["params"]
    # Biases start at zero, where a missing one would not show.
    params = jax.tree.map(lambda p: p + 0.1, params)
    assert set(params) == ({"hidden", "gate", "output"} if gated else {"hidden", "output"})
    assert all(("bias" in linear) == use_bias for linear in params.values())
    outputs = module.apply({"params": params}, inputs, deterministic=True)
    for b in range(B):
        expected = numpy_reference.feed_forward(
            params, np.asarray(inputs[b], np.float64), activation
        )
        np.testing.assert_allclose(outputs[b], expected, rtol=1e-4, atol=1e-4)


def test_the_two_gelus_differ():
    inputs = jnp.linspace(-3, 3, 31)
    gap = jnp.abs(ACTIVATIONS["gelu"](inputs) - ACTIVATIONS["gelu_tanh"](inputs)).max()
    assert 1e-5 < float(gap) < 1e-3


def test_hidden_units_are_dropped():
    module = FeedForward(F, dropout_rate=0.5)
    inputs = jnp.ones((B, T, D))
    params = module.init(jax.random.key(1), inputs, deterministic=True)["params"]
    plain = module.apply({"params": params}, inputs, deterministic=True)
    np.testing.assert_allclose(plain, jnp.broadcast_to(plain[0, 0], plain.shape), atol=1e-6)
    dropped = module.apply(
        {"params": params}, inputs, deterministic=False, rngs={"dropout": jax.random.key(2)}
    )
    assert len(np.unique(np.asarray(dropped).reshape(B * T, D), axis=0)) == B * T
