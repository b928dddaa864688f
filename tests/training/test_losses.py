import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_transformer.training.losses import cross_entropy

B, T, V = 3, 5, 7


@pytest.fixture(scope="module")
def example():
    rng = np.random.default_rng(0)
    return (3.0 * rng.normal(size=(B, T, V))).astype(np.float32), rng.integers(0, V, (B, T))


def smooth(labels, label_smoothing):
    return (1.0 - label_smoothing) * np.eye(V)[labels] + label_smoothing / V


def log_softmax(logits):
    return logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.7])
def test_equals_the_cross_entropy_with_smoothed_one_hot_labels(example, label_smoothing):
    logits, labels = example
    losses = cross_entropy(logits, labels, label_smoothing=label_smoothing)
    log_probs = log_softmax(logits.astype(np.float64))
    expected = -(smooth(labels, label_smoothing) * log_probs).sum(axis=-1)
    np.testing.assert_allclose(losses.smoothed, expected, rtol=1e-5)
    nll = -np.take_along_axis(log_probs, labels[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(losses.nll, nll, rtol=1e-5)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1])
def test_gradient_is_the_softmax_minus_the_smoothed_labels(example, label_smoothing):
    logits, labels = example
    gradient = jax.grad(
        lambda z: cross_entropy(z, labels, label_smoothing=label_smoothing).smoothed.sum()
    )(logits)
    expected = np.exp(log_softmax(logits)) - smooth(labels, label_smoothing)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_is_computed_in_float32(example):
    logits, labels = example
    low = jnp.asarray(logits, jnp.bfloat16)
    losses = cross_entropy(low, labels, label_smoothing=0.1)
    chex.assert_trees_all_equal(
        losses, cross_entropy(low.astype(jnp.float32), labels, label_smoothing=0.1)
    )
    assert losses.smoothed.dtype == losses.nll.dtype == jnp.float32


def test_large_logits_stay_finite():
    logits = jnp.array([[[1e4, -1e4, 0.0]]])
    chex.assert_tree_all_finite(cross_entropy(logits, jnp.array([[1]]), label_smoothing=0.1))
