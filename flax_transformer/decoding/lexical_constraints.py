"""Sequences of tokens that outputs must hold, and the share of the beam that works towards them.

A variant of dynamic beam allocation (Post and Vilar, 2018, arXiv 1804.06609). A constraint is met
by an output that holds its tokens side by side, anywhere; constraints may overlap.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from flax_transformer.array_types import Array, Bool, Float, Int
from flax_transformer.decoding.beam_candidates import RankedPlaces, Totals, best_places
from flax_transformer.decoding.row_options import NO_TOKEN
from flax_transformer.decoding.top_k import top_k

_NOT_READ = -2
"""Stands for the tokens before the first one; unlike the padding of a constraint."""


class Progress(NamedTuple):
    """How much of the constraints of its row each hypothesis holds.

    Attributes:
        constraints: the sequences, padded with -1 on the right; one of padding alone is met.
        is_met: which of them each hypothesis holds.
        recent: its last L tokens, -2 where there are fewer.
    """

    constraints: Int[Array, "B C L"]
    is_met: Bool[Array, "B W C"]
    recent: Int[Array, "B W L"]


def read_progress(
    tokens: Int[Array, "B W T"],
    num_tokens: Int[Array, ""],
    constraints: Int[Array | np.ndarray, "B C L"],
) -> Progress:
    """Find the constraints in the first ``num_tokens`` tokens of each hypothesis.

    >>> constraints = jnp.array([[[3, 4], [5, NO_TOKEN]]])
    >>> read_progress(jnp.array([[[3, 4, 5]]]), jnp.array(2), constraints)[1:]
    (Array([[[ True, False]]], dtype=bool), Array([[[3, 4]]], dtype=int32))
    """
    constraints = jnp.asarray(constraints)
    size = constraints.shape[-1]
    length = tokens.shape[-1]
    padded = jnp.pad(tokens, [(0, 0), (0, 0), (0, size)], constant_values=_NOT_READ)
    is_same = jnp.ones((*tokens.shape[:2], constraints.shape[1], length), bool)
    for offset in range(size):
        wanted = constraints[:, None, :, offset, None]
        is_same &= (padded[:, :, None, offset : offset + length] == wanted) | (wanted == NO_TOKEN)
    lengths = _lengths(constraints)
    ends = jnp.arange(length) + lengths[:, None, :, None]
    is_met = (is_same & (ends <= num_tokens)).any(axis=-1) | (lengths == 0)[:, None]
    places = num_tokens - size + jnp.arange(size)
    recent = jnp.where(places >= 0, tokens[..., jnp.maximum(places, 0)], _NOT_READ)
    return Progress(constraints, is_met, recent)


def count_held(progress: Progress) -> Int[Array, "B W"]:
    """Return how many tokens of the constraints are there, those of one that is begun included.

    The next token of the one that is furthest makes it more, whatever becomes of the others: so
    the fullest bank is fuller by a token at least after every step.

    >>> constraints = jnp.array([[[3, 4], [4, 5], [7, NO_TOKEN]]])
    >>> count_held(read_progress(jnp.array([[[3, 4]]]), jnp.array(2), constraints))
    Array([[3]], dtype=int32)
    """
    lengths = _lengths(progress.constraints)[:, None]
    num_met = jnp.where(progress.is_met, lengths, 0).sum(axis=-1)
    return num_met + jnp.where(progress.is_met, 0, _count_begun(progress)).max(axis=-1)


def suppress_end_until_met(
    logits: Float[Array, "B W V"], progress: Progress, eos_id: int
) -> Float[Array, "B W V"]:
    """Forbid the end token to hypotheses that lack a constraint."""
    end = jnp.where(progress.is_met.all(axis=-1), logits[..., eos_id], -jnp.inf)
    return logits.at[..., eos_id].set(end)


def allocated_places(totals: Totals, progress: Progress) -> RankedPlaces:
    """Return the continuations in the order in which they are given room in the beam.

    There are the best ones of all, the best of each hypothesis, and those by the next token of each
    constraint that it lacks. Continuations that hold equally many tokens of the constraints are a
    bank; the banks take turns, the fullest first, and each gives its best one. So the beam is
    shared equally among the banks, and a bank's room that it cannot fill is the others'.
    """
    num_rows, beam_size, vocab_size = totals.logits.shape
    best = best_places(totals)
    _, own_best = top_k(totals.logits, 1)
    wanted = _next_tokens(progress)
    is_wanted = (wanted >= 0) & (wanted < vocab_size)
    ids = jnp.concatenate([own_best, jnp.where(is_wanted, wanted, own_best)], axis=-1)
    own_places = vocab_size * jnp.arange(beam_size)[:, None] + ids
    places = jnp.concatenate([best.places, own_places.reshape(num_rows, -1)], axis=1)
    ranks = totals.at(places)
    is_repeated = _count_before(places) > 0
    ranks = jnp.where(is_repeated, -jnp.inf, ranks)
    places, ranks = _take((places, ranks), jnp.argsort(-ranks, axis=1))
    banks = count_held(_extend(progress, places // vocab_size, places % vocab_size))
    turns = _count_before(banks)
    order = jnp.lexsort((-banks, turns, ranks == -jnp.inf), axis=-1)
    return RankedPlaces(*_take((places, ranks), order[:, : best.places.shape[1]]))


def may_be_results(
    progress: Progress, is_over: Bool[Array, "B W"], are_any_finished: Bool[Array, " B"]
) -> Bool[Array, "B W"]:
    """Tell which hypotheses that are over may be returned.

    Those that hold all constraints. Where there are none, and none were finished before, those
    that hold the most tokens of them: outputs at the length limit, which has ruled out better ones.

    Args:
        progress: that of the hypotheses.
        is_over: whether they are over, and possible at all.
        are_any_finished: whether the row has results already.
    """
    counts = count_held(progress)
    most = jnp.where(is_over, counts, -1).max(axis=1)
    most = jnp.where(are_any_finished, _lengths(progress.constraints).sum(axis=-1), most)
    return is_over & (counts == most[:, None])


def _take(fields: tuple[Array, Array], places: Int[Array, "B N"]) -> tuple[Array, Array]:
    first, second = (jnp.take_along_axis(field, places, axis=1) for field in fields)
    return first, second


def _lengths(constraints: Int[Array, "B C L"]) -> Int[Array, "B C"]:
    return (constraints != NO_TOKEN).sum(axis=-1)


def _count_begun(progress: Progress) -> Int[Array, "B W C"]:
    """Return how many first tokens of each constraint the last tokens of each hypothesis are."""
    constraints, recent = progress.constraints, progress.recent
    size = constraints.shape[-1]
    num_begun = jnp.zeros(progress.is_met.shape, jnp.int32)
    for length in range(1, size + 1):
        is_same = recent[:, :, None, size - length :] == constraints[:, None, :, :length]
        num_begun = jnp.where(is_same.all(axis=-1), length, num_begun)
    return num_begun


def _next_tokens(progress: Progress) -> Int[Array, "B W C"]:
    """Return the token by which each hypothesis goes on with each constraint that it lacks."""
    num_begun = jnp.minimum(_count_begun(progress), progress.constraints.shape[-1] - 1)
    tokens = jnp.take_along_axis(progress.constraints[:, None], num_begun[..., None], axis=-1)
    return jnp.where(progress.is_met, NO_TOKEN, tokens[..., 0])


def _extend(progress: Progress, parents: Int[Array, "B N"], ids: Int[Array, "B N"]) -> Progress:
    """Return the progress of continuations of the hypotheses ``parents`` by one token each."""
    recent = jnp.take_along_axis(progress.recent, parents[..., None], axis=1)
    recent = jnp.concatenate([recent[..., 1:], ids[..., None]], axis=-1)
    is_met = jnp.take_along_axis(progress.is_met, parents[..., None], axis=1)
    longer = Progress(progress.constraints, is_met, recent)
    is_complete = _count_begun(longer) == _lengths(progress.constraints)[:, None]
    return longer._replace(is_met=is_met | is_complete)


def _count_before(values: Int[Array, "B N"]) -> Int[Array, "B N"]:
    """Return how many entries before each one are equal to it."""
    is_equal = values[:, :, None] == values[:, None]
    return jnp.tril(is_equal, k=-1).sum(axis=-1)
