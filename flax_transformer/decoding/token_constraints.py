"""Logits processors by which some tokens must, and others must not, be generated."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from flax_transformer.array_types import Array, Float, Int
from flax_transformer.decoding.logits_processors import (
    check_in_vocabulary,
    check_token_ids,
    make_tuple,
    set_logits,
)
from flax_transformer.errors import InputError

_ANY = -1


@dataclasses.dataclass(frozen=True)
class SuppressedTokens:
    """Never generate these tokens.

    >>> SuppressedTokens((0, 2))(jnp.zeros((1, 1, 4)), jnp.zeros((1, 1, 5), int), jnp.array(0))
    Array([[[-inf,   0., -inf,   0.]]], dtype=float32)

    Attributes:
        token_ids: the tokens.
    """

    token_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse what cannot be tokens."""
        make_tuple(self, "token_ids")
        check_token_ids("token_ids", self.token_ids)

    def __call__(
        self,
        log_probs: Float[Array, "B W V"],
        tokens: Int[Array, "B W T"],
        num_tokens: Int[Array, ""],
    ) -> Float[Array, "B W V"]:
        """Return ``log_probs`` with -inf for the tokens."""
        check_in_vocabulary("token_ids", self.token_ids, log_probs.shape[-1])
        return log_probs.at[..., np.array(self.token_ids)].set(-jnp.inf)


@dataclasses.dataclass(frozen=True)
class BadWords:
    """Never generate these sequences of tokens.

    The last token of a sequence is impossible after the others. The same text spelled in other
    tokens is another sequence.

    >>> bad = BadWords(((1, 2),))
    >>> bad(jnp.zeros((1, 1, 3)), jnp.array([[[1, 0, 0]]]), jnp.array(1))
    Array([[[  0.,   0., -inf]]], dtype=float32)
    >>> bad(jnp.zeros((1, 1, 3)), jnp.array([[[1, 0, 0]]]), jnp.array(2))
    Array([[[0., 0., 0.]]], dtype=float32)

    Attributes:
        words: the sequences, each of at least one token.
    """

    words: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        """Refuse what cannot be sequences of tokens."""
        object.__setattr__(self, "words", tuple(map(tuple, self.words)))
        if not self.words:
            raise InputError("words must hold at least one sequence, got none.")
        for word in self.words:
            check_token_ids("each of words", word)

    def __call__(
        self,
        log_probs: Float[Array, "B W V"],
        tokens: Int[Array, "B W T"],
        num_tokens: Int[Array, ""],
    ) -> Float[Array, "B W V"]:
        """Return ``log_probs`` with -inf for each token that would complete a sequence."""
        vocab_size, max_length = log_probs.shape[-1], tokens.shape[-1]
        for word in self.words:
            check_in_vocabulary("words", word, vocab_size)
        longest = max(len(word) for word in self.words)
        words = np.full((len(self.words), longest), _ANY)
        for index, word in enumerate(self.words):
            words[index, longest - len(word) :] = word
        places = num_tokens - (longest - 1) + jnp.arange(longest - 1)
        last = tokens[..., jnp.clip(places, 0, max_length - 1)]
        # A word longer than what there is so far cannot be completed.
        is_same = (last[..., None, :] == words[:, :-1]) & (places >= 0)
        is_complete = (is_same | (words[:, :-1] == _ANY)).all(axis=-1)
        return set_logits(log_probs, jnp.where(is_complete, words[:, -1], vocab_size), -jnp.inf)


@dataclasses.dataclass(frozen=True)
class ForcedPrefix:
    """Let every output begin with these tokens; one token alone is a forced first token.

    Their log-probabilities stay the model's and count in the score.

    >>> forced = ForcedPrefix((2,))
    >>> forced(jnp.zeros((1, 1, 3)), jnp.zeros((1, 1, 4), int), jnp.array(0))
    Array([[[-inf, -inf,   0.]]], dtype=float32)

    Attributes:
        token_ids: the first tokens, in their order.
    """

    token_ids: tuple[int, ...]

    def __post_init__(self) -> None:
        """Refuse what cannot be tokens."""
        make_tuple(self, "token_ids")
        check_token_ids("token_ids", self.token_ids)

    def __call__(
        self,
        log_probs: Float[Array, "B W V"],
        tokens: Int[Array, "B W T"],
        num_tokens: Int[Array, ""],
    ) -> Float[Array, "B W V"]:
        """Return ``log_probs`` with -inf for every other token, as long as the prefix lasts."""
        check_in_vocabulary("token_ids", self.token_ids, log_probs.shape[-1])
        length = len(self.token_ids)
        forced = jnp.array(self.token_ids)[jnp.minimum(num_tokens, length - 1)]
        is_allowed = (num_tokens >= length) | (jnp.arange(log_probs.shape[-1]) == forced)
        return jnp.where(is_allowed, log_probs, -jnp.inf)
