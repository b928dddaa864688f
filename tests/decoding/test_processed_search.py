"""Searches with logits processors against searches in plain Python."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from logit_tables import EOS, PAD, START, init_cache, make_tables, reorder, table_step

from flax_transformer.decoding.beam_search import beam_search
from flax_transformer.decoding.beam_strategy import BeamSearch
from flax_transformer.decoding.greedy import Greedy, greedy_search
from flax_transformer.decoding.repetition import NoRepeatNgram, RepetitionPenalty
from flax_transformer.decoding.sampling import Sampling, sample
from flax_transformer.decoding.token_constraints import BadWords, ForcedPrefix, SuppressedTokens

B, T, V = 5, 4, 4
PROCESSORS = (
    NoRepeatNgram(2),
    RepetitionPenalty(1.5),
    BadWords(((2, 3), (1, 2, 1), (3, 0))),
)
WHOLE_SPACE = V**T


@functools.partial(jax.jit, static_argnames="strategy")
def search(tables, strategy):
    starts = jnp.full(len(tables), START)
    ids = {"eos_id": EOS, "pad_id": PAD}
    if isinstance(strategy, Greedy):
        return greedy_search(table_step, init_cache(tables, 1), starts, strategy=strategy, **ids)
    if isinstance(strategy, Sampling):
        cache = init_cache(tables, strategy.num_samples)
        return sample(table_step, cache, starts, strategy=strategy, **ids)
    cache = init_cache(tables, strategy.beam_size)
    return beam_search(table_step, reorder, cache, starts, strategy=strategy, **ids)


def processed(log_probs, tokens, processors):
    """Apply the rules of the processors to log-probabilities [V], one token at a time."""
    log_probs = list(log_probs)
    for token in range(len(log_probs)):
        longer = (*tokens, token)
        for processor in processors:
            match processor:
                case NoRepeatNgram(size):
                    grams = [longer[i : i + size] for i in range(len(longer) - size + 1)]
                    is_forbidden = len(set(grams)) < len(grams)
                case BadWords(words):
                    is_forbidden = any(longer[-len(word) :] == word for word in words)
                case ForcedPrefix(token_ids):
                    is_forbidden = longer[: len(token_ids)] != token_ids[: len(longer)]
                case SuppressedTokens(token_ids):
                    is_forbidden = token in token_ids
                case RepetitionPenalty(penalty):
                    is_forbidden = False
                    if token in tokens:
                        log_probs[token] *= penalty
            if is_forbidden:
                log_probs[token] = -np.inf
    return np.array(log_probs)


def all_outputs(table, processors):
    """Return every output that is possible and the sum of what the search maximises."""
    found, unfinished = {}, {(): 0.0}
    for step in range(len(table)):
        longer = {}
        for tokens, total in unfinished.items():
            logits = table[step][(START, START, *tokens)[-2:]].astype(np.float64)
            log_probs = logits - np.logaddexp.reduce(logits)
            for token, value in enumerate(processed(log_probs, tokens, processors)):
                if value > -np.inf:
                    longer[*tokens, token] = total + value
        found |= {tokens: total for tokens, total in longer.items() if tokens[-1] == EOS}
        unfinished = {tokens: total for tokens, total in longer.items() if tokens[-1] != EOS}
    return found | unfinished


def outputs_of(hypotheses):
    """Yield the row and the tokens of each hypothesis."""
    for row, (tokens, lengths) in enumerate(
        zip(hypotheses.tokens, hypotheses.lengths, strict=True)
    ):
        for ids, length in zip(tokens.tolist(), lengths.tolist(), strict=True):
            yield row, tuple(ids[:length])


def test_a_beam_of_the_whole_space_is_exhaustive_search_of_what_is_allowed():
    tables = make_tables(21, B, T, V)
    strategy = BeamSearch(
        beam_size=WHOLE_SPACE,
        num_best=5,
        max_length=T,
        length_penalty=1.0,
        length_normalization="power",
        early_stopping="never",
        processors=PROCESSORS,
    )
    hypotheses = search(tables, strategy)
    outputs = list(outputs_of(hypotheses))
    for row, table in enumerate(tables):
        scores = {
            tokens: total / len(tokens) for tokens, total in all_outputs(table, PROCESSORS).items()
        }
        best = sorted(scores, key=scores.__getitem__, reverse=True)[: strategy.num_best]
        assert outputs[5 * row : 5 * row + 5] == [(row, tokens) for tokens in best]
        np.testing.assert_allclose(
            hypotheses.scores[row], [scores[tokens] for tokens in best], atol=2e-5
        )


def test_one_hypothesis_is_greedy_search_and_both_follow_the_rules():
    length = 7
    tables = make_tables(22, 31, length, V)
    tables[..., EOS] -= 2.0
    greedy = search(tables, Greedy(max_length=length, processors=PROCESSORS))
    beam = search(tables, BeamSearch(beam_size=1, max_length=length, processors=PROCESSORS))
    outputs = list(outputs_of(greedy))
    assert outputs == list(outputs_of(beam))
    np.testing.assert_allclose(greedy.token_scores, beam.token_scores, atol=1e-5)
    for row, tokens in outputs:
        so_far = ()
        for step, token in enumerate(tokens):
            logits = tables[row, step][(START, START, *so_far)[-2:]].astype(np.float64)
            log_probs = processed(logits - np.logaddexp.reduce(logits), so_far, PROCESSORS)
            assert token == log_probs.argmax()
            so_far = (*so_far, token)
    assert outputs != list(outputs_of(search(tables, Greedy(max_length=length))))
    # A finished or shorter row lets no other one see what it holds.
    few = search(tables[3:4], Greedy(max_length=length, processors=PROCESSORS))
    assert [tokens for _, tokens in outputs_of(few)] == [outputs[3][1]]


def test_an_output_begins_with_what_is_forced_and_holds_nothing_suppressed():
    tables = make_tables(23, B, T, V)
    processors = (ForcedPrefix((3, 1)), SuppressedTokens((2,)))
    strategy = BeamSearch(beam_size=2, num_best=2, max_length=T, processors=processors)
    for _, tokens in outputs_of(search(tables, strategy)):
        assert tokens[:2] == (3, 1)
        assert 2 not in tokens


@pytest.mark.parametrize("kind", [Greedy, Sampling, BeamSearch])
def test_where_everything_is_forbidden_there_is_no_output(kind):
    everything = (SuppressedTokens(tuple(range(V))), RepetitionPenalty(2.0))
    hypotheses = search(make_tables(24, 2, T, V), kind(max_length=T, processors=everything))
    assert (hypotheses.scores == -np.inf).all()
    assert not hypotheses.lengths.any()
    assert not hypotheses.token_scores.any()
    assert (hypotheses.tokens == PAD).all()
