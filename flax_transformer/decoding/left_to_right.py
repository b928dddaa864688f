"""The loop that chooses one token after another, shared by greedy search and sampling."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from flax_transformer.array_types import Array, Bool, Float, Int
from flax_transformer.decoding.hypotheses import Cache, Hypotheses, StepFn, drop_impossible
from flax_transformer.decoding.logits_processors import (
    LogitsProcessor,
    process_logits,
    suppress_early_end,
)


class NextToken(NamedTuple):
    """What a choice is made of.

    Attributes:
        logits: those of the model.
        allowed: those that are left; -inf for what must not be chosen.
        normalizer: ``allowed - normalizer`` are log-probabilities.
        position: number of the token, from 0.
    """

    logits: Float[Array, "B W V"]
    allowed: Float[Array, "B W V"]
    normalizer: Float[Array, "B W"]
    position: Int[Array, ""]


ChooseFn: TypeAlias = Callable[[NextToken], tuple[Int[Array, "B W"], Float[Array, "B W"]]]
"""Return a token for each hypothesis, and its log-probability."""


class _State(NamedTuple):
    """The outputs after ``num_steps`` steps."""

    num_steps: Int[Array, ""]
    last: Int[Array, "B W"]
    tokens: Int[Array, "B W T"]
    token_scores: Float[Array, "B W T"]
    lengths: Int[Array, "B W"]
    is_done: Bool[Array, "B W"]
    cache: Cache


def decode_left_to_right(
    step_fn: StepFn,
    cache: Cache,
    start_tokens: Int[Array, "B W"],
    choose: ChooseFn,
    *,
    min_length: int,
    max_length: int,
    processors: tuple[LogitsProcessor, ...],
    eos_id: int,
    pad_id: int,
) -> Hypotheses:
    """Choose tokens until all hypotheses have ended; they stay in the order of ``start_tokens``.

    Args:
        step_fn: maps the last tokens and the cache to logits and the new cache.
        cache: the cache before the first step.
        start_tokens: what the first step reads.
        choose: makes the choice of a step.
        min_length: generated tokens at least, with the end token.
        max_length: generated tokens at most, with the end token.
        processors: applied to the logits of every step, in this order.
        eos_id: token that ends a hypothesis.
        pad_id: fills ``tokens`` after the end.
    """

    def step(state: _State) -> _State:
        logits, new_cache = step_fn(state.last, state.cache)
        logits = logits.astype(jnp.float32)
        allowed, normalizer = process_logits(logits, state.tokens, state.num_steps, processors)
        allowed = suppress_early_end(allowed, state.num_steps, eos_id=eos_id, min_length=min_length)
        ids, scores = choose(NextToken(logits, allowed, normalizer, state.num_steps))
        token = jnp.where(state.is_done, pad_id, ids)
        return _State(
            num_steps=state.num_steps + 1,
            last=token,
            tokens=state.tokens.at[:, :, state.num_steps].set(token),
            token_scores=state.token_scores.at[:, :, state.num_steps].set(
                jnp.where(state.is_done, 0.0, scores)
            ),
            lengths=state.lengths + ~state.is_done,
            is_done=state.is_done | (token == eos_id),
            cache=new_cache,
        )

    shape = start_tokens.shape
    state = _State(
        num_steps=jnp.zeros((), jnp.int32),
        last=start_tokens.astype(jnp.int32),
        tokens=jnp.full((*shape, max_length), pad_id, jnp.int32),
        token_scores=jnp.zeros((*shape, max_length), jnp.float32),
        lengths=jnp.zeros(shape, jnp.int32),
        is_done=jnp.zeros(shape, bool),
        cache=cache,
    )
    state = jax.lax.while_loop(
        lambda state: (state.num_steps < max_length) & ~state.is_done.all(), step, state
    )
    hypotheses = Hypotheses(
        tokens=state.tokens,
        scores=state.token_scores.sum(axis=-1),
        token_scores=state.token_scores,
        lengths=state.lengths,
    )
    return drop_impossible(hypotheses, pad_id)
