"""What a search returns, and the functions that every search asks for."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import jax.numpy as jnp

from flax_transformer.array_types import Array, Float, Int

Cache: TypeAlias = Any
"""A pytree that a step function keeps between steps."""

StepFn: TypeAlias = Callable[[Int[Array, "B W"], Cache], tuple[Float[Array, "B W V"], Cache]]
"""Read the last token of each hypothesis; return the next one's logits and the new cache."""

ReorderFn: TypeAlias = Callable[[Cache, Int[Array, "B W"]], Cache]
"""Let row w of each beam continue what row ``parents[:, w]`` has read so far."""


class Hypotheses(NamedTuple):
    """The best outputs of each input, best first.

    Attributes:
        tokens: generated tokens with the end token and without the start token, then padding.
        scores: what the search maximised: the sum of ``token_scores``, divided by the length
            penalty, and the coverage of the source where that counts; -inf, without any token,
            where there are fewer hypotheses than were asked for.
        token_scores: log-probability of each generated token, 0 on padding.
        lengths: generated tokens with the end token. A hypothesis whose last one is not the end
            token was cut at the maximum length.
    """

    tokens: Int[Array, "B W T"]
    scores: Float[Array, "B W"]
    token_scores: Float[Array, "B W T"]
    lengths: Int[Array, "B W"]


def drop_impossible(hypotheses: Hypotheses, pad_id: int) -> Hypotheses:
    """Empty what has probability 0: where nothing can be generated, nothing is.

    >>> impossible = Hypotheses(*map(jnp.array, ([[[5]]], [[-jnp.inf]], [[[-jnp.inf]]], [[1]])))
    >>> drop_impossible(impossible, -1)[:3]
    (Array([[[-1]]], dtype=int32), Array([[-inf]], dtype=float32), Array([[[0.]]], dtype=float32))
    """
    # A score that is not a number stays in sight.
    is_possible = hypotheses.scores != -jnp.inf
    return Hypotheses(
        tokens=jnp.where(is_possible[..., None], hypotheses.tokens, pad_id),
        scores=hypotheses.scores,
        token_scores=jnp.where(is_possible[..., None], hypotheses.token_scores, 0.0),
        lengths=jnp.where(is_possible, hypotheses.lengths, 0),
    )
