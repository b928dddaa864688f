"""The continuations that a beam is chosen from."""

from typing import NamedTuple

import jax.numpy as jnp

from flax_transformer.array_types import Array, Float, Int
from flax_transformer.decoding.top_k import take_sums, top_k_of_sums


class Candidates(NamedTuple):
    """Continuations of the hypotheses by one token each, the first to be kept first.

    Attributes:
        parents: the hypothesis that is continued, its place in the beam.
        ids: the token.
        log_probs: log-probability of all tokens.
        token_scores: log-probability of the last one.
    """

    parents: Int[Array, "B C"]
    ids: Int[Array, "B C"]
    log_probs: Float[Array, "B C"]
    token_scores: Float[Array, "B C"]


def num_candidates(beam_size: int, vocab_size: int) -> int:
    """Return how many continuations are looked at: W go on even where W others end.

    >>> num_candidates(4, 100)
    8
    """
    return min(2 * beam_size, beam_size * vocab_size)


class RankedPlaces(NamedTuple):
    """Places of continuations in the flattened beam of W * V, the first to be kept first.

    Attributes:
        places: V times the hypothesis, plus the token.
        ranks: what they are ordered by; -inf where there is no continuation.
    """

    places: Int[Array, "B C"]
    ranks: Float[Array, "B C"]


class Totals(NamedTuple):
    """Log-probabilities of each hypothesis with each token, ``logits + offsets[..., None]``.

    Attributes:
        logits: of the tokens; -inf for what must not be chosen.
        offsets: log-probability of the hypothesis, less the normalizer of its logits.
    """

    logits: Float[Array, "*B W V"]
    offsets: Float[Array, "*B W"]

    def at(self, places: Int[Array, "*B C"]) -> Float[Array, "*B C"]:
        """Return them at ``places`` of the flattened beam."""
        return take_sums(self.logits, self.offsets, places)


def best_places(totals: Totals) -> RankedPlaces:
    """Return the places of the continuations of the greatest ``totals``."""
    beam_size, vocab_size = totals.logits.shape[-2:]
    count = num_candidates(beam_size, vocab_size)
    ranks, places = top_k_of_sums(totals.logits, totals.offsets, count)
    return RankedPlaces(places, ranks)


def make_candidates(
    totals: Totals, log_probs: Float[Array, "B W"], ranked: RankedPlaces
) -> Candidates:
    """Return the continuations at ``ranked.places``.

    >>> totals = Totals(jnp.array([[[-0.5, -1.5]]]), jnp.array([[-0.5]]))
    >>> ranked = RankedPlaces(jnp.array([[1]]), jnp.array([[-9.0]]))
    >>> make_candidates(totals, jnp.array([[-0.5]]), ranked)[1:]
    (Array([[1]], dtype=int32), Array([[-2.]], dtype=float32), Array([[-1.5]], dtype=float32))

    Args:
        totals: log-probabilities of each hypothesis with each token.
        log_probs: those of the hypotheses alone.
        ranked: which continuations.
    """
    vocab_size = totals.logits.shape[-1]
    best = totals.at(ranked.places)
    best = jnp.where(ranked.ranks == -jnp.inf, -jnp.inf, best)
    parents, ids = ranked.places // vocab_size, ranked.places % vocab_size
    # The difference of two impossible totals is NaN; it belongs to no hypothesis.
    token_scores = best - jnp.take_along_axis(log_probs, parents, axis=1)
    token_scores = jnp.where(jnp.isfinite(best), token_scores, 0.0)
    return Candidates(parents, ids, best, token_scores)


def take_candidates(candidates: Candidates, places: Int[Array, "B N"]) -> Candidates:
    """Return the candidates of each row that are at ``places``."""
    return Candidates(*(jnp.take_along_axis(field, places, axis=1) for field in candidates))
