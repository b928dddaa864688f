"""Processors that force and forbid tokens: what they refuse."""

import jax.numpy as jnp
import pytest

from flax_transformer.decoding.token_constraints import BadWords, ForcedPrefix, SuppressedTokens
from flax_transformer.errors import InputError


@pytest.mark.parametrize("make", [SuppressedTokens, ForcedPrefix, lambda ids: BadWords((ids,))])
def test_what_cannot_be_tokens_is_refused(make):
    with pytest.raises(InputError, match="must hold at least one token, got none"):
        make(())
    with pytest.raises(InputError, match="must hold tokens from 0, got -1"):
        make((3, -1))
    with pytest.raises(InputError, match="must hold tokens from 0 to 4, got 5"):
        make((3, 5))(jnp.zeros((1, 1, 5)), jnp.zeros((1, 1, 2), int), jnp.array(0))


def test_no_bad_words_are_refused():
    with pytest.raises(InputError, match="words must hold at least one sequence, got none"):
        BadWords(())


def test_a_word_longer_than_the_output_is_never_complete():
    bad = BadWords(((1, 1, 1, 1, 2),))
    tokens = jnp.ones((1, 1, 3), int)
    for num_tokens in range(3):
        assert not bad(jnp.zeros((1, 1, 3)), tokens, jnp.array(num_tokens)).any()
