"""Beam search over a step function."""

import dataclasses
import math
from typing import Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from flax_transformer.array_types import Array, Bool, Float, Int
from flax_transformer.decoding.greedy import check_lengths
from flax_transformer.decoding.hypotheses import (
    Cache,
    Hypotheses,
    ReorderFn,
    StepFn,
    drop_impossible,
)
from flax_transformer.decoding.logits_processors import (
    LogitsProcessor,
    process_logits,
    suppress_early_end,
)
from flax_transformer.decoding.top_k import top_k
from flax_transformer.errors import InputError

LengthNormalization: TypeAlias = Literal["power", "gnmt"]
EarlyStopping: TypeAlias = Literal["first", "bound", "never"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BeamSearch:
    """Keep the ``beam_size`` best hypotheses at every step.

    Hypotheses are ranked by ``log P / penalty(length)``. A length counts the end token.

    Attributes:
        beam_size: hypotheses kept, W.
        num_best: hypotheses returned for each input.
        max_length: generated tokens at most, with the end token; a hypothesis of this length may
            lack the end token.
        min_length: generated tokens at least, with the end token.
        length_penalty: the exponent α; 0 ranks by probability, more favours longer outputs.
        length_normalization: ``"power"`` for length^α, ``"gnmt"`` for ((5 + length) / 6)^α (Wu et
            al., 2016, arXiv 1609.08144, equation 14).
        early_stopping: ``"first"`` stops an input at ``beam_size`` finished hypotheses, ``"bound"``
            when no unfinished one can still become one of the ``num_best``, ``"never"`` at
            ``max_length``.
        processors: applied to the logits of every step, in this order.
    """

    beam_size: int = 4
    num_best: int = 1
    max_length: int = 128
    min_length: int = 0
    length_penalty: float = 0.6
    length_normalization: LengthNormalization = "gnmt"
    early_stopping: EarlyStopping = "first"
    processors: tuple[LogitsProcessor, ...] = ()

    def __post_init__(self) -> None:
        """Refuse options that cannot work."""
        check_lengths(self.min_length, self.max_length)
        if self.beam_size < 1:
            raise InputError(f"beam_size must be at least 1, got {self.beam_size}.")
        if not 1 <= self.num_best <= self.beam_size:
            raise InputError(
                f"num_best must lie between 1 and beam_size = {self.beam_size}, "
                f"got {self.num_best}."
            )
        if not math.isfinite(self.length_penalty):
            raise InputError(f"length_penalty must be finite, got {self.length_penalty}.")
        if self.length_normalization not in ("power", "gnmt"):
            raise InputError(
                f"length_normalization must be power or gnmt, got {self.length_normalization!r}."
            )
        if self.early_stopping not in ("first", "bound", "never"):
            raise InputError(
                f"early_stopping must be first, bound or never, got {self.early_stopping!r}."
            )


def length_divisor(length: Int[Array, "*B"], strategy: BeamSearch) -> Float[Array, "*B"]:
    """Return what the log-probability of a hypothesis of ``length`` tokens is divided by.

    >>> length_divisor(jnp.array(7), BeamSearch(length_penalty=1.0))
    Array(2., dtype=float32)
    """
    base = length.astype(jnp.float32)
    if strategy.length_normalization == "gnmt":
        base = (5.0 + base) / 6.0
    return base**strategy.length_penalty


class _State(NamedTuple):
    """The search after ``num_steps`` steps: W hypotheses to go on, and the W best finished."""

    num_steps: Int[Array, ""]
    last: Int[Array, "B W"]
    log_probs: Float[Array, "B W"]
    tokens: Int[Array, "B W T"]
    token_scores: Float[Array, "B W T"]
    finished: Hypotheses
    is_done: Bool[Array, " B"]
    cache: Cache


class _Candidates(NamedTuple):
    """The best continuations by one token, best first; twice the beam, so that W may end."""

    parents: Int[Array, "B C"]
    ids: Int[Array, "B C"]
    log_probs: Float[Array, "B C"]
    token_scores: Float[Array, "B C"]


def beam_search(
    step_fn: StepFn,
    reorder_fn: ReorderFn,
    cache: Cache,
    start_tokens: Int[Array, " B"],
    *,
    strategy: BeamSearch,
    eos_id: int,
    pad_id: int,
) -> Hypotheses:
    """Search for the hypotheses of the highest score; one compiled loop.

    At each step the 2 W best continuations of all W hypotheses are taken. Those of the W best that
    end are finished; the W best of those that do not are kept. With ``beam_size`` 1 this is greedy
    decoding, and with a beam as wide as the space it is exhaustive search. Rows do not influence
    each other.

    The most probable first token is not always on the best path:

    >>> table = jnp.log(jnp.array([[0, 0.6, 0.4], [0.4, 0.3, 0.3], [1, 0, 0]]))
    >>> for beam_size in (1, 2):
    ...     best = beam_search(
    ...         lambda tokens, cache: (table[tokens], cache),
    ...         lambda cache, parents: cache,
    ...         None,
    ...         jnp.array([0]),
    ...         strategy=BeamSearch(beam_size=beam_size, max_length=4, length_penalty=0.0),
    ...         eos_id=0,
    ...         pad_id=-1,
    ...     )
    ...     print(best.tokens[0, 0], f"{jnp.exp(best.scores[0, 0]):.2f}")
    [ 1  0 -1 -1] 0.24
    [ 2  0 -1 -1] 0.40

    Args:
        step_fn: maps the last token of each hypothesis and the cache to logits and the new cache.
        reorder_fn: reorders the cache's hypotheses.
        cache: the cache before the first step.
        start_tokens: what the first step reads.
        strategy: options of the search.
        eos_id: token that ends a hypothesis.
        pad_id: fills ``tokens`` after the end.

    Returns:
        The ``num_best`` best hypotheses, finished or of length ``max_length``.
    """

    def step(state: _State) -> _State:
        logits, new_cache = step_fn(state.last, state.cache)
        new_state, parents = _advance(state, logits.astype(jnp.float32), strategy, eos_id)
        return new_state._replace(cache=reorder_fn(new_cache, parents))

    state = jax.lax.while_loop(
        lambda state: (state.num_steps < strategy.max_length) & ~state.is_done.all(),
        step,
        _initial_state(cache, start_tokens, strategy, pad_id),
    )
    return _collect(state, strategy, pad_id)


def _initial_state(
    cache: Cache, start_tokens: Int[Array, " B"], strategy: BeamSearch, pad_id: int
) -> _State:
    shape = (start_tokens.shape[0], strategy.beam_size)
    tokens = jnp.full((*shape, strategy.max_length), pad_id, jnp.int32)
    token_scores = jnp.zeros((*shape, strategy.max_length), jnp.float32)
    # All rows of a beam start equal: all but the first are impossible, or they would stay equal.
    is_first = jnp.broadcast_to(jnp.arange(strategy.beam_size) == 0, shape)
    return _State(
        num_steps=jnp.zeros((), jnp.int32),
        last=jnp.broadcast_to(start_tokens[:, None], shape).astype(jnp.int32),
        log_probs=jnp.where(is_first, 0.0, -jnp.inf),
        tokens=tokens,
        token_scores=token_scores,
        finished=Hypotheses(
            tokens, jnp.full(shape, -jnp.inf), token_scores, jnp.zeros(shape, jnp.int32)
        ),
        is_done=jnp.zeros(shape[:1], bool),
        cache=cache,
    )


def _advance(
    state: _State, logits: Float[Array, "B W V"], strategy: BeamSearch, eos_id: int
) -> tuple[_State, Int[Array, "B W"]]:
    """Take one step; return the state, its cache not reordered yet, and the rows' parents."""
    allowed, normalizer = process_logits(logits, state.tokens, state.num_steps, strategy.processors)
    allowed = suppress_early_end(
        allowed, state.num_steps, eos_id=eos_id, min_length=strategy.min_length
    )
    candidates = _best_continuations(allowed, state.log_probs - normalizer, state.log_probs)
    is_end = candidates.ids == eos_id
    finished = _keep_best(
        state.finished, _ended(state, candidates, is_end, strategy), strategy.beam_size
    )
    # A row that is done stays as it is while the others of the batch go on.
    finished = jax.tree.map(
        lambda old, new: jnp.where(_like(state.is_done, old), old, new),
        state.finished,
        finished,
    )
    log_probs, places = jax.lax.top_k(
        jnp.where(is_end, -jnp.inf, candidates.log_probs), strategy.beam_size
    )
    kept = _take(candidates, places)
    tokens, token_scores = _extend(state, kept)
    new_state = state._replace(
        num_steps=state.num_steps + 1,
        last=kept.ids,
        log_probs=log_probs,
        tokens=tokens,
        token_scores=token_scores,
        finished=finished,
    )
    is_done = state.is_done | _is_done(new_state, strategy)
    return new_state._replace(is_done=is_done), kept.parents


def _collect(state: _State, strategy: BeamSearch, pad_id: int) -> Hypotheses:
    """Return the best hypotheses at the end of the search."""
    # What is unfinished in a row that is not done has max_length tokens: it competes as it is.
    length = jnp.full_like(state.last, strategy.max_length)
    cut = Hypotheses(
        tokens=state.tokens,
        scores=jnp.where(
            state.is_done[:, None],
            -jnp.inf,
            state.log_probs / length_divisor(length, strategy),
        ),
        token_scores=state.token_scores,
        lengths=length,
    )
    best = _keep_best(state.finished, cut, strategy.num_best)
    # Fewer hypotheses than asked for: the rest is empty rather than a remnant of the search.
    return drop_impossible(best, pad_id)


def _best_continuations(
    logits: Float[Array, "B W V"], offsets: Float[Array, "B W"], log_probs: Float[Array, "B W"]
) -> _Candidates:
    """Return the best sums of logits and ``offsets``, the latter one for each hypothesis."""
    batch_size, beam_size, vocab_size = logits.shape
    totals = logits + offsets[..., None]
    num_candidates = min(2 * beam_size, beam_size * vocab_size)
    best, places = top_k(totals.reshape(batch_size, beam_size * vocab_size), num_candidates)
    parents, ids = places // vocab_size, places % vocab_size
    parent_log_probs = jnp.take_along_axis(log_probs, parents, axis=1)
    # The difference of two impossible totals is NaN; it belongs to no hypothesis.
    token_scores = jnp.where(jnp.isfinite(best), best - parent_log_probs, 0.0)
    return _Candidates(parents, ids, best, token_scores)


def _take(candidates: _Candidates, places: Int[Array, "B W"]) -> _Candidates:
    return _Candidates(*(jnp.take_along_axis(field, places, axis=1) for field in candidates))


def _extend(
    state: _State, candidates: _Candidates
) -> tuple[Int[Array, "B C T"], Float[Array, "B C T"]]:
    """Append each candidate's token and its score to what its parent has."""
    parents = candidates.parents[:, :, None]
    tokens = jnp.take_along_axis(state.tokens, parents, axis=1)
    token_scores = jnp.take_along_axis(state.token_scores, parents, axis=1)
    return (
        tokens.at[:, :, state.num_steps].set(candidates.ids),
        token_scores.at[:, :, state.num_steps].set(candidates.token_scores),
    )


def _ended(
    state: _State, candidates: _Candidates, is_end: Bool[Array, "B C"], strategy: BeamSearch
) -> Hypotheses:
    """Return the W best candidates as finished hypotheses; -inf scores those that do not end."""
    places = jnp.broadcast_to(jnp.arange(strategy.beam_size), state.last.shape)
    best = _take(candidates, places)
    tokens, token_scores = _extend(state, best)
    lengths = jnp.broadcast_to(state.num_steps + 1, state.last.shape)
    normalized = best.log_probs / length_divisor(lengths, strategy)
    return Hypotheses(
        tokens=tokens,
        scores=jnp.where(is_end[:, : strategy.beam_size], normalized, -jnp.inf),
        token_scores=token_scores,
        lengths=lengths,
    )


def _keep_best(first: Hypotheses, second: Hypotheses, count: int) -> Hypotheses:
    """Return the ``count`` best of both, best first; of equal ones the first's."""
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), first, second)
    _, places = jax.lax.top_k(both.scores, count)
    return jax.tree.map(
        lambda field: jnp.take_along_axis(
            field, places.reshape(places.shape + (1,) * (field.ndim - 2)), axis=1
        ),
        both,
    )


def _is_done(state: _State, strategy: BeamSearch) -> Bool[Array, " B"]:
    """Tell the rows whose result cannot change, by the rule of ``early_stopping``."""
    best_unfinished = state.log_probs.max(axis=1)
    is_exhausted = best_unfinished == -jnp.inf
    if strategy.early_stopping == "never":
        return is_exhausted
    if strategy.early_stopping == "first":
        return is_exhausted | (state.finished.scores > -jnp.inf).all(axis=1)
    # Log-probabilities only fall, and the divisor is monotone in the length: a score is at most
    # what the present log-probability gives at one of the two ends of the lengths to come.
    lengths = jnp.stack([state.num_steps + 1, jnp.full_like(state.num_steps, strategy.max_length)])
    bound = (best_unfinished[:, None] / length_divisor(lengths, strategy)).max(axis=1)
    return is_exhausted | (state.finished.scores[:, strategy.num_best - 1] >= bound)


def _like(rows: Bool[Array, " B"], array: Array) -> Array:
    """Add dimensions to ``rows`` so that it broadcasts against ``array``."""
    return rows.reshape(rows.shape + (1,) * (array.ndim - 1))
