"""Greedy decoding: the most probable token at every step."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from flax_transformer.array_types import Array, Bool, Float, Int
from flax_transformer.decoding.hypotheses import Cache, Hypotheses, StepFn
from flax_transformer.decoding.logits_processors import log_normalizer, suppress_early_end
from flax_transformer.decoding.top_k import top_k
from flax_transformer.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Greedy:
    """Take the most probable token at every step.

    Attributes:
        max_length: generated tokens at most, with the end token.
        min_length: generated tokens at least, with the end token.
    """

    max_length: int = 128
    min_length: int = 0

    def __post_init__(self) -> None:
        """Refuse lengths that cannot be met."""
        check_lengths(self.min_length, self.max_length)


def check_lengths(min_length: int, max_length: int) -> None:
    """Raise InputError unless ``0 <= min_length <= max_length`` and ``max_length >= 1``."""
    if max_length < 1:
        raise InputError(f"max_length must be at least 1, got {max_length}.")
    if not 0 <= min_length <= max_length:
        raise InputError(
            f"min_length must lie between 0 and max_length = {max_length}, got {min_length}."
        )


class _State(NamedTuple):
    """The search after ``num_steps`` steps."""

    num_steps: Int[Array, ""]
    last: Int[Array, "B 1"]
    tokens: Int[Array, "B 1 T"]
    token_scores: Float[Array, "B 1 T"]
    lengths: Int[Array, "B 1"]
    is_done: Bool[Array, "B 1"]
    cache: Cache


def greedy_search(
    step_fn: StepFn,
    cache: Cache,
    start_tokens: Int[Array, " B"],
    *,
    strategy: Greedy,
    eos_id: int,
    pad_id: int,
) -> Hypotheses:
    """Decode one hypothesis for each row; ``step_fn`` is called with a beam of one row.

    Args:
        step_fn: maps the last tokens and the cache to logits and the new cache.
        cache: the cache before the first step.
        start_tokens: what the first step reads.
        strategy: lengths.
        eos_id: token that ends a hypothesis.
        pad_id: fills ``tokens`` after the end.
    """

    def step(state: _State) -> _State:
        logits, new_cache = step_fn(state.last, state.cache)
        logits = logits.astype(jnp.float32)
        allowed = suppress_early_end(
            logits, state.num_steps, eos_id=eos_id, min_length=strategy.min_length
        )
        best, ids = top_k(allowed, 1)
        token = jnp.where(state.is_done, pad_id, ids[..., 0])
        score = best[..., 0] - log_normalizer(logits)
        return _State(
            num_steps=state.num_steps + 1,
            last=token,
            tokens=state.tokens.at[:, :, state.num_steps].set(token),
            token_scores=state.token_scores.at[:, :, state.num_steps].set(
                jnp.where(state.is_done, 0.0, score)
            ),
            lengths=state.lengths + ~state.is_done,
            is_done=state.is_done | (token == eos_id),
            cache=new_cache,
        )

    shape = (start_tokens.shape[0], 1)
    state = _State(
        num_steps=jnp.zeros((), jnp.int32),
        last=start_tokens[:, None].astype(jnp.int32),
        tokens=jnp.full((*shape, strategy.max_length), pad_id, jnp.int32),
        token_scores=jnp.zeros((*shape, strategy.max_length), jnp.float32),
        lengths=jnp.zeros(shape, jnp.int32),
        is_done=jnp.zeros(shape, bool),
        cache=cache,
    )
    state = jax.lax.while_loop(
        lambda state: (state.num_steps < strategy.max_length) & ~state.is_done.all(), step, state
    )
    return Hypotheses(
        tokens=state.tokens,
        scores=state.token_scores.sum(axis=-1),
        token_scores=state.token_scores,
        lengths=state.lengths,
    )
