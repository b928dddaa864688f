"""Log-probabilities of outputs that are there: against the logits, and padding."""

import jax
import numpy as np
import pytest

from flax_transformer.decoding.score import score
from flax_transformer.errors import InputError

BOS = 1
T = 4


def test_scores_are_log_probabilities_of_the_labels(tiny, sources):
    labels = np.random.default_rng(2).integers(3, 11, (len(sources.tokens), T))
    target = np.concatenate([np.full((len(labels), 1), BOS), labels[:, :-1]], axis=1)
    logits = jax.jit(tiny.model.apply)(
        {"params": tiny.params}, sources.tokens, target, sources.mask
    )
    expected = np.take_along_axis(
        np.asarray(jax.nn.log_softmax(logits)), labels[..., None], axis=-1
    )[..., 0]
    arguments = tiny.model, tiny.params, sources.tokens, target, labels
    scores = score(*arguments, source_mask=sources.mask)
    np.testing.assert_allclose(scores, expected, atol=2e-5)
    label_mask = np.arange(T) < np.arange(len(labels))[:, None]
    masked = score(*arguments, source_mask=sources.mask, label_mask=label_mask)
    np.testing.assert_allclose(masked, np.where(label_mask, expected, 0.0), atol=2e-5)


@pytest.mark.parametrize(("name", "bound"), [("source", 13), ("target", 11), ("labels", 11)])
def test_tokens_outside_the_vocabulary_are_refused(tiny, name, bound):
    for token in (-1, bound):
        rows = {key: np.array([[3, 4]]) for key in ("source", "target", "labels")}
        rows[name] = np.array([[3, token]])
        with pytest.raises(InputError, match=f"{name} must hold tokens from 0 to {bound - 1}"):
            score(tiny.model, tiny.params, *rows.values())
