import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_transformer.errors import InputError
from flax_transformer.nn.embedding import OutputProjection
from flax_transformer.training.losses import cross_entropy, linear_cross_entropy

B, T, D, V = 3, 5, 4, 7


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


@pytest.fixture(scope="module")
def states_and_projection():
    rng = np.random.default_rng(1)
    states, table = rng.normal(size=(B, T, D)), 1.5 * rng.normal(size=(V, D))
    bias = rng.normal(size=V)
    return jax.tree.map(jnp.float32, (states, OutputProjection(table, bias)))


def value_and_gradients(states, projection, labels, **options):
    """Return the losses, and the gradients of their sum by states and projection."""

    def loss(states, projection):
        losses = linear_cross_entropy(states, projection, labels, **options)
        return losses.smoothed.sum(), losses

    compute = jax.jit(
        jax.value_and_grad(loss, argnums=(0, 1), has_aux=True),
    )
    (_, losses), gradients = compute(states, projection)
    return losses, gradients


def test_of_states_it_is_that_of_their_logits(example, states_and_projection):
    _, labels = example
    states, (table, bias) = states_and_projection
    losses = linear_cross_entropy(
        states, OutputProjection(table, bias), labels, label_smoothing=0.1
    )
    expected = cross_entropy(states @ table.T + bias, labels, label_smoothing=0.1)
    chex.assert_trees_all_close(losses, expected, rtol=1e-5)


# 7 = 3 * 2 + 1: a part is left over; 7 parts of one token each.
@pytest.mark.parametrize(("vocab_chunks", "label_smoothing"), [(3, 0.1), (7, 0.1), (3, 0.0)])
def test_parts_of_the_vocabulary_change_nothing(
    example, states_and_projection, vocab_chunks, label_smoothing
):
    _, labels = example
    compute = functools.partial(
        value_and_gradients, *states_and_projection, labels, label_smoothing=label_smoothing
    )
    chex.assert_trees_all_close(compute(vocab_chunks=vocab_chunks), compute(), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("vocab_chunks", [1, 3])
def test_low_precision_is_near_and_its_sums_are_float32(
    example, states_and_projection, vocab_chunks
):
    _, labels = example
    expected, expected_gradients = value_and_gradients(*states_and_projection, labels)
    losses, gradients = value_and_gradients(
        *states_and_projection, labels, vocab_chunks=vocab_chunks, logits_dtype=jnp.bfloat16
    )
    assert losses.smoothed.dtype == losses.nll.dtype == jnp.float32
    # A bfloat16 has 8 bits; the largest logits are about 8, so that they are off by 2^-5 at most.
    chex.assert_trees_all_close(losses, expected, rtol=0, atol=2.0**-4)
    chex.assert_trees_all_close(gradients, expected_gradients, rtol=0, atol=2.0**-4)
    assert np.abs(losses.nll - expected.nll).max() > 0.0


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_no_wider_array_than_the_logits_is_kept_for_the_backward_pass(example, dtype):
    logits, labels = example
    _, backward = jax.vjp(lambda z: cross_entropy(z, labels).smoothed, logits.astype(dtype))
    kept = [leaf for leaf in jax.tree.leaves(backward) if leaf.shape == logits.shape]
    assert [leaf.dtype for leaf in kept] == [dtype]


def test_gradients_of_low_precision_are_those_of_the_rounded_logits(example):
    logits, labels = example
    gradient = jax.grad(lambda z: cross_entropy(z, labels, label_smoothing=0.1).smoothed.sum())
    low = logits.astype(jnp.bfloat16)
    actual, expected = gradient(low), gradient(low.astype(np.float32))
    assert actual.dtype == jnp.bfloat16
    np.testing.assert_allclose(actual.astype(np.float32), expected, rtol=2.0**-8, atol=1e-6)


@pytest.mark.parametrize("vocab_chunks", [1, 3])
def test_large_logits_stay_finite_in_parts_too(vocab_chunks):
    states = jnp.array([[[1e4]]])
    projection = OutputProjection(jnp.linspace(-1.0, 1.0, V)[:, None])
    losses, gradients = value_and_gradients(
        states, projection, jnp.array([[1]]), label_smoothing=0.1, vocab_chunks=vocab_chunks
    )
    chex.assert_tree_all_finite((losses, gradients))


def test_more_parts_than_tokens_are_refused(states_and_projection, example):
    with pytest.raises(InputError, match=r"vocab_chunks must be at most .* 7, got 8"):
        linear_cross_entropy(*states_and_projection, example[1], vocab_chunks=8)
