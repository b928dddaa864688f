"""One step of beam search."""

import jax
import jax.numpy as jnp

from flax_transformer.array_types import Array, Bool, Float, Int
from flax_transformer.decoding.beam_candidates import (
    Candidates,
    RankedPlaces,
    Totals,
    best_places,
    make_candidates,
    take_candidates,
)
from flax_transformer.decoding.beam_state import BeamInputs, Beams
from flax_transformer.decoding.beam_strategy import BeamSearch
from flax_transformer.decoding.coverage_penalty import coverage_score
from flax_transformer.decoding.diverse_groups import choose_by_group
from flax_transformer.decoding.finished_pool import join_hypotheses, keep_best, update_rows
from flax_transformer.decoding.hypotheses import Hypotheses
from flax_transformer.decoding.length_penalty import best_score_to_come, length_divisor
from flax_transformer.decoding.lexical_constraints import (
    allocated_places,
    may_be_results,
    read_progress,
    suppress_end_until_met,
)
from flax_transformer.decoding.logits_processors import allow_tokens


def advance_beams(
    beams: Beams,
    inputs: BeamInputs,
    num_steps: Int[Array, ""],
    logits: Float[Array, "B W V"],
    attention: Float[Array, "B W S"] | None,
    *,
    strategy: BeamSearch,
    eos_id: int,
) -> tuple[Beams, Int[Array, "B W"]]:
    """Take one step; each beam is a row here, those of one row of the batch side by side.

    Args:
        beams: the beams after ``num_steps`` steps.
        inputs: what each of them is given.
        num_steps: tokens so far.
        logits: those of the next token.
        attention: that of the step to the source, for the coverage penalty.
        strategy: options of the search.
        eos_id: token that ends a hypothesis.

    Returns:
        The beams, and what hypothesis each one of theirs continues.
    """
    if attention is not None and beams.coverage is not None:
        beams = beams._replace(coverage=beams.coverage + attention)
    candidates = _choose(beams, inputs, num_steps, logits, strategy, eos_id)
    longest = _max_lengths(inputs, strategy)
    # An output that has reached its limit is over, with or without an end token.
    is_over = (candidates.ids == eos_id) | (num_steps + 1 >= longest)
    ended = _ended(beams, inputs, num_steps, candidates, is_over, strategy)
    finished = keep_best(join_hypotheses(beams.finished, ended), strategy.group_size)
    # A beam that is done stays as it is while the others of the batch go on.
    finished = update_rows(beams.is_done, beams.finished, finished)
    # The first W that go on; a stable sort leaves them in their order.
    places = jnp.argsort(is_over, axis=1, stable=True)[:, : strategy.group_size]
    kept = take_candidates(candidates, places)
    tokens, token_scores = _extend(beams, num_steps, kept)
    beams = Beams(
        last=kept.ids,
        log_probs=jnp.where(jnp.take_along_axis(is_over, places, axis=1), -jnp.inf, kept.log_probs),
        tokens=tokens,
        token_scores=token_scores,
        coverage=_take_coverage(beams, kept.parents),
        finished=finished,
        is_done=beams.is_done,
    )
    is_done = beams.is_done | _is_done(beams, num_steps + 1, longest[:, 0], strategy)
    return beams._replace(is_done=is_done), kept.parents


def _choose(
    beams: Beams,
    inputs: BeamInputs,
    num_steps: Int[Array, ""],
    logits: Float[Array, "B W V"],
    strategy: BeamSearch,
    eos_id: int,
) -> Candidates:
    """Return the continuations that the next beam is made of, in the order of their claims."""
    allowed, normalizer = allow_tokens(
        logits,
        beams.tokens,
        num_steps,
        inputs.options,
        processors=strategy.processors,
        min_length=strategy.min_length,
        eos_id=eos_id,
    )
    progress = None
    if inputs.constraints is not None:
        progress = read_progress(beams.tokens, num_steps, inputs.constraints)
        # At its limit an output ends in any case, and perhaps must.
        is_last = num_steps + 1 >= _max_lengths(inputs, strategy)
        unmet = suppress_end_until_met(allowed, progress, eos_id)
        allowed = jnp.where(is_last[..., None], allowed, unmet)
    totals = Totals(allowed, beams.log_probs - normalizer)
    num_groups = strategy.num_groups

    def choose(totals: Totals, group: int) -> RankedPlaces:
        if progress is None:
            return best_places(totals)
        of_group = jax.tree.map(lambda field: field[group::num_groups], progress)
        return allocated_places(totals, of_group)

    if num_groups == 1:
        ranked = choose(totals, 0)
    else:
        by_group = jax.tree.map(lambda leaf: leaf.reshape(-1, num_groups, *leaf.shape[1:]), totals)
        ranked = choose_by_group(choose, by_group, strategy.diversity_strength)
        ranked = RankedPlaces(*(field.reshape(len(allowed), -1) for field in ranked))
    return make_candidates(totals, beams.log_probs, ranked)


def _ended(
    beams: Beams,
    inputs: BeamInputs,
    num_steps: Int[Array, ""],
    candidates: Candidates,
    is_over: Bool[Array, "B C"],
    strategy: BeamSearch,
) -> Hypotheses:
    """Return the W best candidates as finished hypotheses; -inf scores those that go on."""
    first = jnp.broadcast_to(jnp.arange(strategy.group_size), beams.last.shape)
    best = take_candidates(candidates, first)
    tokens, token_scores = _extend(beams, num_steps, best)
    lengths = jnp.broadcast_to(num_steps + 1, beams.last.shape)
    scores = best.log_probs / length_divisor(
        lengths, alpha=strategy.length_penalty, normalization=strategy.length_normalization
    )
    coverage = _take_coverage(beams, best.parents)
    if coverage is not None:
        scores += coverage_score(coverage, inputs.source_mask, strategy.coverage_penalty)
    is_finished = is_over[:, : strategy.group_size]
    if inputs.constraints is not None:
        is_finished = may_be_results(
            read_progress(tokens, num_steps + 1, inputs.constraints),
            is_finished & (best.log_probs > -jnp.inf),
            beams.finished.scores[:, 0] > -jnp.inf,
        )
    return Hypotheses(tokens, jnp.where(is_finished, scores, -jnp.inf), token_scores, lengths)


def _extend(
    beams: Beams, num_steps: Int[Array, ""], candidates: Candidates
) -> tuple[Int[Array, "B C T"], Float[Array, "B C T"]]:
    """Append each candidate's token and its score to what its parent has."""
    parents = candidates.parents[:, :, None]
    tokens = jnp.take_along_axis(beams.tokens, parents, axis=1)
    token_scores = jnp.take_along_axis(beams.token_scores, parents, axis=1)
    return (
        tokens.at[:, :, num_steps].set(candidates.ids),
        token_scores.at[:, :, num_steps].set(candidates.token_scores),
    )


def _take_coverage(beams: Beams, parents: Int[Array, "B C"]) -> Float[Array, "B C S"] | None:
    if beams.coverage is None:
        return None
    return jnp.take_along_axis(beams.coverage, parents[:, :, None], axis=1)


def _max_lengths(inputs: BeamInputs, strategy: BeamSearch) -> Int[Array, "#B 1"]:
    if inputs.options.max_lengths is None:
        return jnp.full((1, 1), strategy.max_length)
    return jnp.asarray(inputs.options.max_lengths)[:, None]


def _is_done(
    beams: Beams, num_steps: Int[Array, ""], max_lengths: Int[Array, "#B"], strategy: BeamSearch
) -> Bool[Array, " B"]:
    """Tell the beams whose result cannot change, by the rule of ``early_stopping``."""
    best_unfinished = beams.log_probs.max(axis=1)
    is_exhausted = best_unfinished == -jnp.inf
    if strategy.early_stopping == "never":
        return is_exhausted
    if strategy.early_stopping == "first":
        return is_exhausted | (beams.finished.scores > -jnp.inf).all(axis=1)
    # The coverage of the source is worth 0 at most.
    bound = best_score_to_come(
        best_unfinished,
        num_steps + 1,
        max_lengths,
        alpha=strategy.length_penalty,
        normalization=strategy.length_normalization,
    )
    num_best = min(strategy.num_best, strategy.group_size)
    return is_exhausted | (beams.finished.scores[:, num_best - 1] >= bound)
