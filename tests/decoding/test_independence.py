"""What an output depends on: with every strategy, on its own source and options alone."""

import itertools

import numpy as np
import pytest

from flax_transformer.decoding import room
from flax_transformer.decoding.beam_strategy import BeamSearch
from flax_transformer.decoding.generate import generate
from flax_transformer.decoding.greedy import Greedy
from flax_transformer.decoding.repetition import NoRepeatNgram
from flax_transformer.decoding.row_options import NO_TOKEN
from flax_transformer.decoding.sampling import Sampling
from flax_transformer.decoding.score import score

PAD, BOS, EOS = 0, 1, 2
T = 7

STRATEGIES = {
    "greedy": Greedy(max_length=T, processors=(NoRepeatNgram(2),)),
    "sampling": Sampling(max_length=T, num_samples=2, temperature=0.8, top_p=0.9, seed=3),
    "beam": BeamSearch(
        beam_size=3, num_best=2, max_length=T, max_length_ratio=1.5, processors=(NoRepeatNgram(2),)
    ),
    "constraints": BeamSearch(
        beam_size=4,
        num_best=2,
        max_length=T,
        min_length_ratio=1.0,
        early_stopping="bound",
        length_penalty=1.3,
        coverage_penalty=0.4,
        num_groups=2,
        diversity_strength=2.0,
    ),
}
PREFIXES = np.array([[5, 6], [7, NO_TOKEN], [NO_TOKEN] * 2, [8, 8], [9, 5], [6, NO_TOKEN], [3, 4]])
CONSTRAINTS = np.full((7, 2, 2), NO_TOKEN)
CONSTRAINTS[0, 0] = [5, 6]
CONSTRAINTS[2, :, 0] = [9, 4]
CONSTRAINTS[5, 0, 0] = 10


def run(tiny, name, tokens, mask, rows):
    """Decode the sources of ``rows``, which have these tokens and this mask."""
    return generate(
        tiny.model,
        tiny.params,
        tokens,
        strategy=STRATEGIES[name],
        mask=mask,
        prefixes=PREFIXES[rows] if name == "greedy" else None,
        constraints=CONSTRAINTS[rows] if name == "constraints" else None,
        row_numbers=rows,
        bos_id=BOS,
        eos_id=EOS,
        pad_id=PAD,
    )


@pytest.fixture(scope="module", params=STRATEGIES)
def named_hypotheses(request, tiny, sources):
    rows = np.arange(len(sources.tokens))
    return request.param, run(tiny, request.param, *sources, rows)


def test_neighbours_order_and_padding_do_not_matter(tiny, sources, named_hypotheses):
    name, together = named_hypotheses
    rows = np.array([5, 2, 0])
    padding = ((0, 0), (0, 3))
    # Not the padding id: what is padding is for the mask to say.
    tokens = np.pad(sources.tokens[rows], padding, constant_values=9)
    some = run(tiny, name, tokens, np.pad(sources.mask[rows], padding), rows)
    np.testing.assert_array_equal(some.tokens, together.tokens[rows])
    np.testing.assert_array_equal(some.lengths, together.lengths[rows])
    np.testing.assert_allclose(some.scores, together.scores[rows], atol=2e-4)
    np.testing.assert_allclose(some.token_scores, together.token_scores[rows], atol=2e-4)
    assert len(np.unique(together.tokens)) > 3


def test_growth_and_dead_slots_of_the_cache_do_not_matter(
    tiny, sources, named_hypotheses, monkeypatch
):
    name, expected = named_hypotheses
    monkeypatch.setattr(room, "_FIRST_ROOM", 2)
    monkeypatch.setattr(room, "_COMPACTED_ROOM", 1)
    # Exactly as many slots as are alive: one more would hide that one is missing.
    monkeypatch.setattr(room, "bucket_length", lambda length, _: length)
    grown = run(tiny, name, *sources, np.arange(len(sources.tokens)))
    np.testing.assert_array_equal(grown.tokens, expected.tokens)
    np.testing.assert_allclose(grown.scores, expected.scores, atol=2e-4)


def test_token_scores_are_those_of_the_same_text(tiny, sources, named_hypotheses):
    _, (tokens, scores, token_scores, lengths) = named_hypotheses
    labels = np.asarray(tokens).reshape(-1, T)
    num_best = tokens.shape[1]
    expected = score(
        tiny.model,
        tiny.params,
        sources.tokens.repeat(num_best, axis=0),
        np.concatenate([np.full((len(labels), 1), BOS), labels[:, :-1]], axis=1),
        labels,
        source_mask=sources.mask.repeat(num_best, axis=0),
        label_mask=np.arange(T) < lengths.reshape(-1, 1),
    )
    np.testing.assert_allclose(token_scores.reshape(-1, T), expected, atol=2e-4)
    assert np.isfinite(scores).all()


def test_the_rows_get_what_they_ask_for(named_hypotheses, sources):
    name, hypotheses = named_hypotheses
    num_read = sources.mask.sum(axis=1)[:, None]
    outputs = [
        [tuple(ids[:length].tolist()) for ids, length in zip(*row, strict=True)]
        for row in zip(hypotheses.tokens, hypotheses.lengths, strict=True)
    ]
    if name == "greedy":
        assert [row[0][:2] for row in outputs][3:5] == [(8, 8), (9, 5)]
    if name == "beam":
        assert (hypotheses.lengths <= np.maximum(1, 1.5 * num_read)).all()
    if name == "constraints":
        assert (hypotheses.lengths >= num_read).all()
        assert all((5, 6) in itertools.pairwise(tokens) for tokens in outputs[0])
        assert all({9, 4} <= set(tokens) for tokens in outputs[2])
        assert all(10 in tokens for tokens in outputs[5])
