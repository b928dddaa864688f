"""Log-probabilities of outputs that are there: against the logits, and padding."""

import jax
import numpy as np
import pytest

from flax_transformer.decoding.score import score
from flax_transformer.errors import InputError

BOS = 1
T = 4


@pytest.fixture(scope="module")
def targets(sources):
    """What the decoder reads, what it should say, and where it counts."""
    rng = np.random.default_rng(2)
    labels = rng.integers(3, 11, (len(sources.tokens), T))
    target = np.concatenate([np.full((len(labels), 1), BOS), labels[:, :-1]], axis=1)
    return target, labels, np.arange(T) < rng.integers(1, T + 1, (len(labels), 1))


def test_scores_are_log_probabilities_of_the_labels(tiny, sources, targets):
    target, labels, label_mask = targets
    logits = jax.jit(tiny.model.apply)(
        {"params": tiny.params}, sources.tokens, target, sources.mask
    )
    log_probs = np.asarray(jax.nn.log_softmax(logits))
    expected = np.take_along_axis(log_probs, labels[..., None], axis=-1)[..., 0]
    unmasked = score(
        tiny.model, tiny.params, sources.tokens, target, labels, source_mask=sources.mask
    )
    np.testing.assert_allclose(unmasked, expected, atol=2e-5)
    masked = score(
        tiny.model,
        tiny.params,
        sources.tokens,
        target,
        labels,
        source_mask=sources.mask,
        label_mask=label_mask,
    )
    np.testing.assert_allclose(masked, np.where(label_mask, expected, 0.0), atol=2e-5)


def test_the_probabilities_of_all_labels_sum_to_one(tiny, sources):
    vocab_size = tiny.config.target_vocab_size
    log_probs = score(
        tiny.model,
        tiny.params,
        sources.tokens[:1].repeat(vocab_size, axis=0),
        np.full((vocab_size, 1), BOS),
        np.arange(vocab_size)[:, None],
    )
    np.testing.assert_allclose(np.exp(log_probs).sum(), 1.0, rtol=1e-5)


@pytest.mark.parametrize(("name", "bound"), [("source", 13), ("target", 11), ("labels", 11)])
def test_tokens_outside_the_vocabulary_are_refused(tiny, name, bound):
    for token in (-1, bound):
        rows = {key: np.array([[3, 4]]) for key in ("source", "target", "labels")}
        rows[name] = np.array([[3, token]])
        with pytest.raises(InputError, match=f"{name} must hold tokens from 0 to {bound - 1}"):
            score(tiny.model, tiny.params, *rows.values())
