"""Groups of a beam that are told to differ (Vijayakumar et al., 2016, arXiv 1610.02424)."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from flax_transformer.decoding.beam_candidates import RankedPlaces, Totals


def choose_by_group(
    choose: Callable[[Totals, int], RankedPlaces],
    totals: Totals,
    strength: float,
) -> RankedPlaces:
    """Let one group after another choose its continuations; return them as [B, G, C].

    What a group ranks its continuations by is less by ``strength`` for each of the best W
    continuations of a group before it that has the same last token: the Hamming diversity of the
    present step. Ranks alone change: log-probabilities stay the model's.

    Args:
        choose: returns the best continuations of group ``g``, given its totals and ``g``.
        totals: log-probabilities of each hypothesis of each group with each token, [B, G, W, V].
        strength: λ.
    """
    num_rows, num_groups, beam_size, vocab_size = totals.logits.shape
    counts = jnp.zeros((num_rows, 1, vocab_size))
    chosen = []
    for group in range(num_groups):
        logits = totals.logits[:, group] - strength * counts
        ranked = choose(Totals(logits, totals.offsets[:, group]), group)
        chosen.append(ranked)
        ids = ranked.places[:, :beam_size] % vocab_size
        is_possible = ranked.ranks[:, :beam_size] > -jnp.inf
        counts = counts.at[jnp.arange(num_rows)[:, None], 0, ids].add(is_possible)
    return jax.tree.map(lambda *fields: jnp.stack(fields, axis=1), *chosen)
