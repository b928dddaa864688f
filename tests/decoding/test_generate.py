"""Decoding with a model: against the full forward pass, alone and in batches."""

import itertools

import jax
import numpy as np
import pytest

from flax_transformer.decoding import batch_loop, programs, room
from flax_transformer.decoding.beam_strategy import BeamSearch
from flax_transformer.decoding.generate import generate
from flax_transformer.decoding.greedy import Greedy
from flax_transformer.decoding.length_penalty import length_divisor
from flax_transformer.decoding.sampling import Sampling
from flax_transformer.decoding.score import score
from flax_transformer.errors import InputError
from flax_transformer.models.encoder_decoder import EncoderDecoder
from flax_transformer.models.stack import stack_layers

PAD, BOS, EOS = 0, 1, 2
T = 8

GREEDY = Greedy(max_length=T)
SAMPLING = Sampling(num_samples=2, temperature=0.7, max_length=T, seed=3)
BEAM = BeamSearch(beam_size=3, num_best=2, max_length=T, min_length=3, early_stopping="bound")


def run(tiny, tokens, mask, strategy):
    return generate(
        tiny.model,
        tiny.params,
        tokens,
        strategy=strategy,
        mask=mask,
        bos_id=BOS,
        eos_id=EOS,
        pad_id=PAD,
    )


@pytest.fixture(scope="module")
def hypotheses(tiny, sources):
    """What the batch of all sources gives, by strategy."""
    return {strategy: run(tiny, *sources, strategy) for strategy in (GREEDY, BEAM, SAMPLING)}


def assert_same(hypotheses, expected):
    for name in ("tokens", "lengths"):
        np.testing.assert_array_equal(getattr(hypotheses, name), getattr(expected, name))
    for name in ("scores", "token_scores"):
        np.testing.assert_allclose(getattr(hypotheses, name), getattr(expected, name), atol=2e-4)


def row_of(hypotheses, row):
    return jax.tree.map(lambda field: field[row : row + 1], hypotheses)


def test_greedy_is_the_argmax_of_the_full_forward_pass(tiny, sources, hypotheses):
    full = jax.jit(tiny.model.apply)
    # What is not decoded yet lies to the right of what is read: it has no influence.
    target = np.full((len(sources.tokens), T + 1), PAD)
    target[:, 0] = BOS
    is_done = np.zeros(len(target), bool)
    for t in range(T):
        logits = full({"params": tiny.params}, sources.tokens, target[:, :T], sources.mask)
        token = np.where(is_done, PAD, np.asarray(logits[:, t]).argmax(-1))
        target[:, t + 1] = token
        is_done |= token == EOS
    np.testing.assert_array_equal(hypotheses[GREEDY].tokens[:, 0], target[:, 1:])
    assert is_done.any()
    assert not is_done.all()
    assert len(np.unique(target)) > 5


def test_the_scores_are_those_of_the_full_forward_pass(tiny, sources, hypotheses):
    tokens, scores, token_scores, lengths = hypotheses[BEAM]
    labels = tokens.reshape(-1, T)
    target = np.concatenate([np.full((len(labels), 1), BOS), labels[:, :-1]], axis=1)
    expected = score(
        tiny.model,
        tiny.params,
        sources.tokens.repeat(BEAM.num_best, axis=0),
        target,
        labels,
        source_mask=sources.mask.repeat(BEAM.num_best, axis=0),
        label_mask=np.arange(T) < lengths.reshape(-1, 1),
    )
    np.testing.assert_allclose(token_scores.reshape(-1, T), expected, atol=2e-4)
    divisor = length_divisor(
        lengths, alpha=BEAM.length_penalty, normalization=BEAM.length_normalization
    )
    np.testing.assert_allclose(scores, expected.reshape(tokens.shape).sum(-1) / divisor, atol=2e-4)
    assert (lengths >= BEAM.min_length).all()
    assert (np.diff(scores) <= 0).all()


def test_more_padding_changes_nothing(tiny, sources, hypotheses):
    extra = ((0, 0), (0, 4))
    # Not the padding id: what is padding is for the mask to say.
    tokens = np.pad(sources.tokens, extra, constant_values=7)
    assert_same(run(tiny, tokens, np.pad(sources.mask, extra), BEAM), hypotheses[BEAM])


def test_a_row_does_not_depend_on_its_neighbours(tiny, sources, hypotheses):
    for row in range(len(sources.tokens)):
        alone = run(tiny, sources.tokens[row : row + 1], sources.mask[row : row + 1], BEAM)
        assert_same(alone, row_of(hypotheses[BEAM], row))


def test_a_source_without_padding_needs_no_mask(tiny, sources, hypotheses):
    assert_same(run(tiny, sources.tokens[:1], None, GREEDY), row_of(hypotheses[GREEDY], 0))


def test_stacked_layers_decode_the_same(make_tiny, tiny, sources, hypotheses):
    model = EncoderDecoder(make_tiny(scan_layers=True).config)
    stacked = tiny._replace(model=model, params=stack_layers(tiny.params))
    assert_same(run(stacked, *sources, GREEDY), hypotheses[GREEDY])


def test_a_source_without_tokens_gives_something_finite(tiny, sources, hypotheses):
    mask = sources.mask.copy()
    mask[2] = False
    result = run(tiny, sources.tokens, mask, BEAM)
    assert np.isfinite(result.scores).all()
    for row in (1, 3):
        assert_same(row_of(result, row), row_of(hypotheses[BEAM], row))


def test_the_number_of_programs_does_not_depend_on_the_data(tiny, sources, monkeypatch):
    monkeypatch.setattr(batch_loop, "_LEAVE_FACTOR", 2)
    monkeypatch.setattr(batch_loop, "_FEWEST_ROWS", 2)
    monkeypatch.setattr(room, "_FIRST_ROOM", 3)
    shapes = set()

    def recorded_advance(task, params, state, limit, enough_done):
        shapes.add((state.is_done.shape[0], state.cache[0].ancestry.shape[-1]))
        return advance(task, params, state, limit, enough_done)

    advance = programs.advance
    monkeypatch.setattr(programs, "advance", recorded_advance)
    num_before = advance._cache_size()
    for shift in range(6):
        tokens = np.where(sources.mask, 3 + (sources.tokens + shift) % 10, PAD)
        # A strategy that is equal, not the same object.
        run(tiny, tokens, sources.mask, Greedy(max_length=T))
    assert shapes <= set(itertools.product((7, 3), (3, 4, 8)))
    assert advance._cache_size() - num_before <= len(shapes)


@pytest.mark.parametrize("strategy", [GREEDY, BEAM, SAMPLING], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize(("first_room", "compacted_room"), [(1, 1), (3, 1), (3, T)])
def test_neither_growth_nor_leaving_slots_and_rows_change_anything(
    tiny, sources, hypotheses, strategy, first_room, compacted_room, monkeypatch
):
    expected = hypotheses[strategy]
    monkeypatch.setattr(room, "_FIRST_ROOM", first_room)
    monkeypatch.setattr(room, "_COMPACTED_ROOM", compacted_room)
    # Exactly as many slots as are alive: one more would hide that one is missing.
    monkeypatch.setattr(room, "bucket_length", lambda length, _: length)
    monkeypatch.setattr(batch_loop, "_LEAVE_FACTOR", 2)
    monkeypatch.setattr(batch_loop, "_FEWEST_ROWS", 1)
    assert_same(run(tiny, *sources, strategy), expected)
    # Some rows are done long before others.
    assert len(np.unique(expected.lengths)) > 1


def test_samples_are_told_apart_by_row_numbers_and_another_seed_is_no_other_program(tiny, sources):
    def sample(rows, seed):
        return generate(
            tiny.model,
            tiny.params,
            sources.tokens[rows],
            mask=sources.mask[rows],
            row_numbers=rows,
            strategy=Sampling(num_samples=2, max_length=4, seed=seed),
            bos_id=BOS,
            eos_id=EOS,
            pad_id=PAD,
        )

    rows = np.arange(3)
    first = sample(rows, 1)
    num_compiled = programs.advance._cache_size()
    assert not np.array_equal(sample(rows, 2).tokens, first.tokens)
    assert_same(sample(rows[::-1], 1), jax.tree.map(lambda field: field[::-1], first))
    assert programs.advance._cache_size() == num_compiled


def test_an_ensemble_averages_probabilities_at_every_step(tiny, sources):
    other = jax.tree.map(lambda leaf: leaf[::-1] if leaf.ndim == 1 else leaf, tiny.params)
    params = (tiny.params, other)
    found = generate(
        (tiny.model, tiny.model),
        params,
        sources.tokens,
        mask=sources.mask,
        strategy=BEAM,
        bos_id=BOS,
        eos_id=EOS,
        pad_id=PAD,
    )
    labels = found.tokens[:, 0]
    target = np.concatenate([np.full((len(labels), 1), BOS), labels[:, :-1]], axis=1)
    probs = [
        np.exp(
            score(tiny.model, of_model, sources.tokens, target, labels, source_mask=sources.mask)
        )
        for of_model in params
    ]
    is_token = np.arange(T) < found.lengths[:, :1]
    expected = np.where(is_token, np.log(np.mean(probs, axis=0)), 0.0)
    np.testing.assert_allclose(found.token_scores[:, 0], expected, atol=2e-4)
    assert np.abs(probs[0] - probs[1]).max() > 0.1
    with pytest.raises(InputError, match="models and params must be equally many"):
        generate(
            (tiny.model, tiny.model),
            params[:1],
            sources.tokens,
            strategy=BEAM,
            bos_id=BOS,
            eos_id=EOS,
            pad_id=PAD,
        )


@pytest.mark.parametrize("token", [-1, 13])
def test_tokens_outside_the_vocabulary_are_refused(tiny, token):
    with pytest.raises(
        InputError, match=r"inputs must hold tokens from 0 to 12, got .*" f"{token}"
    ):
        run(tiny, np.array([[3, 4], [token, 5]]), None, GREEDY)


def test_an_output_longer_than_the_model_can_read_is_refused(tiny, sources):
    with pytest.raises(InputError, match=r"max_length must be at most max_positions = 17, got 18"):
        run(tiny, *sources, Greedy(max_length=18))


@pytest.mark.parametrize("bos_id", [None, -1, 11])
def test_a_start_token_outside_the_vocabulary_is_refused(tiny, sources, bos_id):
    with pytest.raises(InputError, match=r"^bos_id must "):
        generate(
            tiny.model,
            tiny.params,
            sources.tokens,
            strategy=GREEDY,
            bos_id=bos_id,
            eos_id=EOS,
            pad_id=PAD,
        )


def test_a_source_longer_than_the_model_can_read_is_refused(tiny):
    with pytest.raises(InputError, match=r"at most max_positions = 17 tokens long, got 18"):
        run(tiny, np.full((1, 18), 3), None, GREEDY)
