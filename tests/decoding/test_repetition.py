"""Processors against repetition: their edges and what they refuse."""

import jax.numpy as jnp
import numpy as np
import pytest

from flax_transformer.decoding.repetition import NoRepeatNgram, RepetitionPenalty
from flax_transformer.errors import InputError

LOG_PROBS = -jnp.arange(1.0, 6.0)[None, None]
# Padding that is negative or a token itself must not count.
TOKENS = jnp.array([[[3, 1, 3, -1, 0]]])


@pytest.mark.parametrize(
    ("size", "num_tokens", "forbidden"),
    [(1, 0, []), (1, 3, [1, 3]), (2, 1, []), (2, 3, [1]), (3, 3, []), (5, 3, []), (6, 3, [])],
)
def test_only_repeated_ngrams_are_forbidden(size, num_tokens, forbidden):
    result = NoRepeatNgram(size)(LOG_PROBS, TOKENS, jnp.array(num_tokens))
    assert np.flatnonzero(np.isneginf(result)).tolist() == forbidden


@pytest.mark.parametrize("penalty", [0.5, 1.0, 3.0])
def test_what_is_there_is_penalised_once(penalty):
    result = RepetitionPenalty(penalty)(LOG_PROBS, TOKENS, jnp.array(3))
    factors = np.array([1.0, penalty, 1.0, penalty, 1.0])
    np.testing.assert_allclose(result, LOG_PROBS * factors)


def test_what_cannot_work_is_refused():
    with pytest.raises(InputError, match="size must be at least 1, got 0"):
        NoRepeatNgram(0)
    for penalty in (0.0, -1.0, np.inf, np.nan):
        with pytest.raises(InputError, match=f"penalty must be positive and finite, got {penalty}"):
            RepetitionPenalty(penalty)
