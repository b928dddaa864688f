"""Decoding without an encoder: what follows prompts of unequal length."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_transformer.decoding import room
from flax_transformer.decoding.beam_strategy import BeamSearch
from flax_transformer.decoding.generate import generate
from flax_transformer.decoding.greedy import Greedy
from flax_transformer.decoding.sampling import Sampling
from flax_transformer.decoding.stream import stream
from flax_transformer.decoding.token_constraints import SuppressedTokens
from flax_transformer.errors import InputError
from flax_transformer.models.decoder_only import DecoderOnly
from flax_transformer.models.transformer_config import TransformerConfig

PAD, EOS = 0, 2
T = 7
LENGTHS = np.array([4, 1, 6, 3])


@pytest.fixture(scope="module", params=["learned", "rotary"])
def language_model(request):
    model = DecoderOnly(
        TransformerConfig(
            architecture="decoder_only",
            source_vocab_size=11,
            target_vocab_size=11,
            model_dim=12,
            num_encoder_layers=0,
            num_decoder_layers=2,
            num_heads=2,
            feed_forward_dim=17,
            max_positions=19,
            pre_norm=True,
            position_encoding=request.param,
            share_target_output_embedding=False,
        )
    )
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), jnp.zeros((1, 1), int)))
    rng = np.random.default_rng(6)
    # With most random weights every output repeats a token or two; with these they vary.
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: (
            float(path[-1].key == "scale") + 0.3 * rng.normal(size=leaf.shape)
        ).astype(np.float32),
        shapes["params"],
    )
    return model, params


@pytest.fixture(scope="module")
def prompts():
    """Padded on the right."""
    tokens = np.random.default_rng(0).integers(3, 11, (4, 6))
    mask = np.arange(6) < LENGTHS[:, None]
    return np.where(mask, tokens, PAD), mask


def run(language_model, tokens, mask, strategy):
    model, params = language_model
    return generate(model, params, tokens, strategy=strategy, mask=mask, eos_id=EOS, pad_id=PAD)


def test_greedy_is_the_argmax_of_the_full_forward_pass(language_model, prompts):
    model, params = language_model
    tokens = run(language_model, *prompts, Greedy(max_length=T)).tokens[:, 0]
    full = jax.jit(model.apply)
    for prompt, length, found in zip(prompts[0], LENGTHS, np.asarray(tokens), strict=True):
        text = np.zeros((1, 6 + T), int)
        text[0, :length] = prompt[:length]
        for t in range(length, length + T):
            text[0, t] = full({"params": params}, text)[0, t - 1].argmax()
        expected = text[0, length : length + T]
        is_after_end = np.cumsum(expected == EOS) - (expected == EOS) > 0
        np.testing.assert_array_equal(found, np.where(is_after_end, PAD, expected))
    assert len(np.unique(tokens)) > 3


@pytest.mark.parametrize(
    "strategy",
    [BeamSearch(beam_size=3, num_best=2, max_length=T), Sampling(max_length=T, num_samples=2)],
    ids=lambda strategy: type(strategy).__name__,
)
def test_a_prompt_does_not_depend_on_its_neighbours_or_its_padding(
    language_model, prompts, strategy
):
    model, params = language_model
    together = run(language_model, *prompts, strategy)
    for row, length in enumerate(LENGTHS):
        alone = generate(
            model,
            params,
            prompts[0][row : row + 1, :length],
            strategy=strategy,
            row_numbers=np.array([row]),
            eos_id=EOS,
            pad_id=PAD,
        )
        np.testing.assert_array_equal(alone.tokens[0], together.tokens[row])
        np.testing.assert_allclose(alone.scores[0], together.scores[row], atol=1e-4)


def test_dead_slots_and_padding_may_leave_the_cache(language_model, prompts, monkeypatch):
    strategy = BeamSearch(beam_size=3, num_best=2, max_length=T, early_stopping="never")
    expected = run(language_model, *prompts, strategy)
    monkeypatch.setattr(room, "_FIRST_ROOM", 2)
    monkeypatch.setattr(room, "_COMPACTED_ROOM", 1)
    # Exactly as many slots as are alive: one more would hide that one is missing.
    monkeypatch.setattr(room, "bucket_length", lambda length, _: length)
    compacted = run(language_model, *prompts, strategy)
    np.testing.assert_array_equal(compacted.tokens, expected.tokens)
    np.testing.assert_allclose(compacted.scores, expected.scores, atol=1e-4)


def test_prompts_may_be_padded_on_the_left(language_model, prompts):
    tokens, mask = prompts
    to_the_right = [np.roll(row, 6 - length) for row, length in zip(tokens, LENGTHS, strict=True)]
    strategy = Greedy(max_length=T)
    left = run(language_model, np.stack(to_the_right), mask[:, ::-1], strategy)
    right = run(language_model, tokens, mask, strategy)
    np.testing.assert_array_equal(left.tokens, right.tokens)
    np.testing.assert_allclose(left.scores, right.scores, atol=1e-4)


def test_a_prompt_without_tokens_is_refused(language_model, prompts):
    tokens, mask = prompts
    with pytest.raises(InputError, match="each prompt must hold at least one token"):
        run(language_model, tokens, mask & (LENGTHS > 1)[:, None], Greedy(max_length=T))


def test_padding_takes_no_positions(language_model, prompts):
    tokens, mask = (np.pad(array, [(0, 0), (0, 13)]) for array in prompts)
    strategy = Greedy(max_length=14)
    padded = run(language_model, tokens, mask, strategy)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4),
        padded,
        run(language_model, *prompts, strategy),
    )


def test_each_prompt_may_use_the_positions_it_leaves(language_model, prompts):
    model, params = language_model
    tokens, mask = prompts
    rest = 20 - LENGTHS
    strategy = Greedy(max_length=19, processors=(SuppressedTokens((EOS,)),))
    arguments = {"strategy": strategy, "eos_id": EOS, "pad_id": PAD}
    found = generate(model, params, tokens, mask=mask, max_lengths=rest, **arguments)
    np.testing.assert_array_equal(found.lengths[:, 0], np.minimum(rest, 19))
    assert np.isfinite(found.scores).all()
    streamed = stream(model, params, tokens[:1, :4], max_lengths=np.array([16]), **arguments)
    np.testing.assert_array_equal(np.stack(list(streamed), axis=1)[0], found.tokens[0, 0, :16])


def test_more_than_the_model_can_read_is_refused(language_model, prompts):
    run(language_model, *prompts, Greedy(max_length=14))
    with pytest.raises(InputError, match=r"at most 20 tokens together .* got 6 \+ 15"):
        run(language_model, *prompts, Greedy(max_length=15))
