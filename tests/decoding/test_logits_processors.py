"""What is done to the logits of a step before a search reads them."""

import jax.numpy as jnp
import numpy as np
import pytest

from flax_transformer.decoding.logits_processors import log_normalizer
from flax_transformer.decoding.row_options import NO_OPTIONS, suppress_early_end

LOGITS = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)


@pytest.mark.parametrize("min_length", [0, 1, 2, 4])
def test_the_end_is_possible_from_the_minimal_length_on(min_length):
    for index in range(5):
        result = suppress_early_end(
            LOGITS, jnp.array(index), NO_OPTIONS, eos_id=3, min_length=min_length
        )
        others = np.arange(5) != 3
        np.testing.assert_array_equal(result[..., others], LOGITS[..., others])
        # The token of step i is number i + 1 of the output.
        expected = LOGITS[..., 3] if index + 1 >= min_length else np.full((2, 3), -np.inf)
        np.testing.assert_array_equal(result[..., 3], expected)


def test_probabilities_sum_to_one():
    totals = jnp.exp(LOGITS - log_normalizer(LOGITS)[..., None]).sum(-1)
    np.testing.assert_allclose(totals, np.ones((2, 3)), rtol=1e-6)


def test_impossible_tokens_stay_impossible_and_large_logits_finite():
    logits = jnp.array([[-jnp.inf, 3e38], [-jnp.inf, -jnp.inf], [-3e38, -3e38]])
    log_probs = logits - log_normalizer(logits)[..., None]
    np.testing.assert_array_equal(log_probs[0], [-jnp.inf, 0.0])
    np.testing.assert_array_equal(log_probs[1], [-jnp.inf, -jnp.inf])
    assert jnp.isfinite(log_probs[2]).all()


def test_a_missing_number_is_not_hidden():
    assert jnp.isnan(log_normalizer(jnp.array([0.0, jnp.nan])))
