"""The choice of one token after another, shared by greedy search and sampling."""

import functools
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax.numpy as jnp

from flax_transformer.array_types import Array, Bool, Float, Int, Key
from flax_transformer.decoding.hypotheses import Cache, Hypotheses, StepFn, drop_impossible
from flax_transformer.decoding.logits_processors import LogitsProcessor, allow_tokens
from flax_transformer.decoding.row_options import NO_OPTIONS, RowOptions
from flax_transformer.decoding.search import Search, grow_last_axis


class NextToken(NamedTuple):
    """What a choice is made of.

    Attributes:
        logits: those of the model.
        allowed: those that are left; -inf for what must not be chosen.
        normalizer: ``allowed - normalizer`` are log-probabilities.
        position: number of the token, from 0.
        keys: a random key for each hypothesis; None where nothing is drawn.
    """

    logits: Float[Array, "B W V"]
    allowed: Float[Array, "B W V"]
    normalizer: Float[Array, "B W"]
    position: Int[Array, ""]
    keys: Key[Array, "B W"] | None


ChooseFn: TypeAlias = Callable[[NextToken], tuple[Int[Array, "B W"], Float[Array, "B W"]]]
"""Return a token for each hypothesis, and its log-probability."""


class LeftToRightState(NamedTuple):
    """The outputs after ``num_steps`` steps."""

    num_steps: Int[Array, ""]
    last: Int[Array, "B W"]
    tokens: Int[Array, "B W T"]
    token_scores: Float[Array, "B W T"]
    lengths: Int[Array, "B W"]
    is_done: Bool[Array, "B W"]
    rows: RowOptions
    keys: Key[Array, "B W"] | None
    cache: Cache


def make_left_to_right(
    choose: ChooseFn,
    *,
    num_hypotheses: int,
    min_length: int,
    processors: tuple[LogitsProcessor, ...],
    eos_id: int,
    pad_id: int,
    rows: RowOptions = NO_OPTIONS,
    keys: Key[Array, "B W"] | None = None,
) -> Search:
    """Choose tokens until all hypotheses have ended; hypotheses stay in their order.

    Args:
        choose: makes the choice of a step.
        num_hypotheses: of each row, W.
        min_length: generated tokens at least, with the end token.
        processors: applied to the logits of every step, in this order.
        eos_id: token that ends a hypothesis.
        pad_id: fills ``tokens`` after the end.
        rows: limits and prefixes, row by row.
        keys: a random key for each hypothesis, for ``choose``.
    """

    def start(cache: Cache, start_tokens: Int[Array, " B"], room: int) -> LeftToRightState:
        shape = (start_tokens.shape[0], num_hypotheses)
        return LeftToRightState(
            num_steps=jnp.zeros((), jnp.int32),
            last=jnp.broadcast_to(start_tokens[:, None], shape).astype(jnp.int32),
            tokens=jnp.full((*shape, room), pad_id, jnp.int32),
            token_scores=jnp.zeros((*shape, room), jnp.float32),
            lengths=jnp.zeros(shape, jnp.int32),
            is_done=jnp.zeros(shape, bool),
            rows=rows,
            keys=keys,
            cache=cache,
        )

    def step(step_fn: StepFn, state: LeftToRightState) -> LeftToRightState:
        logits, new_cache = step_fn(state.last, state.cache)
        logits = logits.astype(jnp.float32)
        allowed, normalizer = allow_tokens(
            logits,
            state.tokens,
            state.num_steps,
            state.rows,
            processors=processors,
            min_length=min_length,
            eos_id=eos_id,
        )
        ids, scores = choose(NextToken(logits, allowed, normalizer, state.num_steps, state.keys))
        token = jnp.where(state.is_done, pad_id, ids)
        is_done = state.is_done | (token == eos_id)
        if state.rows.max_lengths is not None:
            is_done |= state.num_steps + 1 >= state.rows.max_lengths[:, None]
        return LeftToRightState(
            num_steps=state.num_steps + 1,
            # Padding is for the outputs alone: a model need not have a token for it.
            last=jnp.where(state.is_done, state.last, ids),
            tokens=state.tokens.at[:, :, state.num_steps].set(token),
            token_scores=state.token_scores.at[:, :, state.num_steps].set(
                jnp.where(state.is_done, 0.0, scores)
            ),
            lengths=state.lengths + ~state.is_done,
            is_done=is_done,
            rows=state.rows,
            keys=state.keys,
            cache=new_cache,
        )

    def grow(state: LeftToRightState, room: int) -> LeftToRightState:
        return state._replace(
            tokens=grow_last_axis(state.tokens, room, pad_id),
            token_scores=grow_last_axis(state.token_scores, room, 0.0),
        )

    return Search(start, step, grow, functools.partial(_collect, pad_id=pad_id))


def _collect(state: LeftToRightState, *, pad_id: int) -> Hypotheses:
    """Return the outputs; their scores are the sums of those of their tokens."""
    hypotheses = Hypotheses(
        tokens=state.tokens,
        scores=state.token_scores.sum(axis=-1),
        token_scores=state.token_scores,
        lengths=state.lengths,
    )
    return drop_impossible(hypotheses, pad_id)
