"""The coverage penalty: its formula, and the search for what has the best score with it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from logit_tables import (
    EOS,
    PAD,
    START,
    all_paths,
    init_cache,
    make_tables,
    reorder,
    table_step,
)

from flax_transformer.decoding.beam_search import beam_search
from flax_transformer.decoding.beam_state import BeamInputs
from flax_transformer.decoding.beam_strategy import BeamSearch
from flax_transformer.decoding.coverage_penalty import coverage_score
from flax_transformer.errors import InputError

B, T, V, S = 4, 4, 3, 5
WHOLE_SPACE = 24


def step_with_attention(tokens, cache):
    """The attention of a step is looked up by the last two tokens, too."""
    attention, table_cache, _ = cache
    rows = jnp.arange(tokens.shape[0])[:, None]
    places = rows, table_cache.index, table_cache.previous, jnp.maximum(tokens, 0)
    logits, new_cache = table_step(tokens, table_cache)
    return logits, (attention, new_cache, attention[places])


def reorder_with_attention(cache, parents):
    # The weights are read before this is called: what it leaves must not matter.
    attention, table_cache, weights = cache
    return attention, reorder(table_cache, parents), jnp.full_like(weights, jnp.nan)


@functools.partial(jax.jit, static_argnames="strategy")
def search(tables, attention, strategy, source_mask=None):
    weights = jnp.full((len(tables), strategy.beam_size, attention.shape[-1]), jnp.nan)
    return beam_search(
        step_with_attention,
        reorder_with_attention,
        (attention, init_cache(tables, strategy.beam_size), weights),
        jnp.full(len(tables), START),
        strategy=strategy,
        eos_id=EOS,
        pad_id=PAD,
        inputs=BeamInputs(source_mask=source_mask),
        attention_fn=lambda cache: cache[2],
    )


def make_attention(seed, mask):
    logits = 2 * np.random.default_rng(seed).normal(size=(B, T, V, V, S))
    weights = np.exp(logits) * mask[:, None, None, None]
    return (weights / weights.sum(-1, keepdims=True)).astype(np.float32)


def score_of(path, attention, mask, strength, alpha):
    tokens = (START, START, *path.tokens)
    coverage = sum(attention[t][tokens[t], tokens[t + 1]] for t in range(len(path.tokens)))
    penalty = sum(np.log(min(c, 1.0)) for c, counts in zip(coverage, mask, strict=True) if counts)
    return path.score("power", alpha) + strength * penalty


@pytest.mark.parametrize(("alpha", "early_stopping"), [(0.8, "bound"), (-0.5, "bound")])
def test_a_beam_of_the_whole_space_finds_the_best_scores_with_it(alpha, early_stopping):
    tables = make_tables(61, B, T, V)
    mask = np.arange(S) < np.array([5, 3, 4, 1])[:, None]
    attention = make_attention(62, mask)
    strategy = BeamSearch(
        beam_size=WHOLE_SPACE,
        num_best=4,
        max_length=T,
        length_penalty=alpha,
        length_normalization="power",
        early_stopping=early_stopping,
        coverage_penalty=0.7,
    )
    hypotheses = search(tables, attention, strategy, mask)
    orders = []
    for row, table in enumerate(tables):
        scores = {
            path.tokens: score_of(path, attention[row], mask[row], 0.7, alpha)
            for path in all_paths(table)
        }
        best = sorted(scores, key=scores.__getitem__, reverse=True)[:4]
        found = [
            tuple(ids[:length].tolist())
            for ids, length in zip(hypotheses.tokens[row], hypotheses.lengths[row], strict=True)
        ]
        assert found == best
        np.testing.assert_allclose(
            hypotheses.scores[row], [scores[tokens] for tokens in best], rtol=1e-5
        )
        by_probability = sorted(all_paths(table), key=lambda path: -path.score("power", alpha))
        orders.append(best == [path.tokens for path in by_probability[:4]])
    assert not all(orders)


def test_a_position_without_attention_leaves_the_score_finite():
    score = coverage_score(jnp.array([[[0.0, 3.0]]]), None, 0.5)
    np.testing.assert_allclose(score, 0.5 * np.log(1e-10), rtol=1e-5)


def test_a_penalty_without_attention_is_refused():
    with pytest.raises(InputError, match=r"coverage_penalty must be 0 without attention .* 0.2"):
        beam_search(
            table_step,
            reorder,
            None,
            jnp.array([START]),
            strategy=BeamSearch(coverage_penalty=0.2),
            eos_id=EOS,
            pad_id=PAD,
        )
