"""A decoder alone, step by step after unequal prompts, gives the logits of whole texts."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_transformer.errors import InputError
from flax_transformer.models.compact_cache import compact_cache, count_live_slots
from flax_transformer.models.decoder_cache import grow_cache, reorder_cache
from flax_transformer.models.decoder_only import DecoderOnly
from flax_transformer.models.parameters import abstract_parameters
from flax_transformer.models.transformer_config import TransformerConfig

V, P, T, BEAM_SIZE = 31, 5, 4, 3
LENGTHS = (5, 1, 3)

CONFIG = TransformerConfig(
    architecture="decoder_only",
    source_vocab_size=V,
    target_vocab_size=V,
    model_dim=20,
    num_encoder_layers=0,
    num_decoder_layers=2,
    num_heads=4,
    head_dim=6,
    feed_forward_dim=17,
    max_positions=11,
)
FAMILIES = {
    "GPT-2": {
        "pre_norm": True,
        "activation": "gelu_tanh",
        "position_encoding": "learned",
        "position_offset": 1,
        "attention_bias": True,
        "scale_embedding": False,
    },
    "Llama": {
        "pre_norm": True,
        "norm": "rms",
        "num_key_value_heads": 2,
        "gated_feed_forward": True,
        "feed_forward_bias": False,
        "activation": "silu",
        "position_encoding": "rotary",
        "rotary_base": 500.0,
        "scale_embedding": False,
        "share_target_output_embedding": False,
    },
    "relative": {
        "position_encoding": "relative",
        "num_relative_buckets": 8,
        "max_relative_distance": 7,
    },
}


@pytest.fixture(scope="module", params=FAMILIES)
def decoder(request):
    """A model and its parameters, its compiled step and its compiled full forward pass."""
    model = DecoderOnly(dataclasses.replace(CONFIG, **FAMILIES[request.param]))
    rng = np.random.default_rng(0)
    params = jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray(
            float(path[-1].key == "scale") + 0.3 * rng.normal(size=leaf.shape), leaf.dtype
        ),
        abstract_parameters(model),
    )
    step = jax.jit(lambda *args: model.apply({"params": params}, *args, method="decode_step"))
    return model, params, step, jax.jit(lambda tokens: model.apply({"params": params}, tokens))


def start(decoder, prompts, mask, **options):
    model, params, *_ = decoder
    mask = None if mask is None else jnp.asarray(mask)
    return model.apply(
        {"params": params}, jnp.asarray(prompts), mask, method="init_cache", **options
    )


@pytest.mark.parametrize("side", ["left", "right"])
def test_every_step_has_the_logits_of_the_whole_text(decoder, side):
    _, _, step, full = decoder
    rng = np.random.default_rng(1)
    texts = [rng.integers(0, V, length + T - 1) for length in LENGTHS]
    prompts, mask = np.full((3, P), 7), np.zeros((3, P), bool)
    for b, (text, length) in enumerate(zip(texts, LENGTHS, strict=True)):
        span = slice(P - length, P) if side == "left" else slice(length)
        prompts[b, span], mask[b, span] = text[:length], True
    cache = start(decoder, prompts, mask, max_length=2)
    rows = np.stack([np.pad(text, (0, P + T - 1 - len(text))) for text in texts])
    expected = full(rows)
    for t in range(T):
        if t == 2:
            cache = grow_cache(cache, T - 2)
        places = np.array(LENGTHS) - 1 + t
        logits, cache = step(rows[np.arange(3), places][:, None], cache)
        np.testing.assert_allclose(logits[:, 0], expected[np.arange(3), places], atol=3e-5)


@pytest.mark.parametrize("compacted_at", [None, 2])
def test_hypotheses_share_the_prompt_and_go_their_own_ways(decoder, compacted_at):
    _, _, step, full = decoder
    rng = np.random.default_rng(2)
    prompts = rng.integers(0, V, (2, P))
    cache = start(decoder, prompts, None, beam_size=BEAM_SIZE, max_length=compacted_at or T)
    paths = np.repeat(prompts[:, None, :], BEAM_SIZE, axis=1)
    for t in range(T):
        if t:
            parents = rng.integers(0, BEAM_SIZE, (2, BEAM_SIZE))
            cache = reorder_cache(cache, jnp.asarray(parents))
            paths = np.take_along_axis(paths, parents[:, :, None], axis=1)
            new = rng.integers(0, V, (2, BEAM_SIZE, 1))
            paths = np.concatenate([paths, new], axis=-1)
        if t == compacted_at:
            num_slots = int(count_live_slots(cache).max())
            assert num_slots < cache.self_attention[0].keys.shape[-1]
            cache = grow_cache(compact_cache(cache, num_slots), T - t)
        logits, cache = step(jnp.asarray(paths[:, :, -1]), cache)
        padded = np.pad(paths, ((0, 0), (0, 0), (0, P + T - 1 - paths.shape[-1])))
        for w in range(BEAM_SIZE):
            np.testing.assert_allclose(logits[:, w], full(padded[:, w])[:, P - 1 + t], atol=3e-5)


def test_a_step_past_the_end_of_the_cache_is_not_silent(decoder):
    _, _, step, _ = decoder
    cache = start(decoder, np.ones((1, 2), int), None, max_length=2)
    for t in range(3):
        logits, cache = step(np.ones((1, 1), int), cache)
        assert bool(jnp.isnan(logits).all()) == (t == 2)


def test_a_prompt_and_its_continuation_must_fit_the_positions(decoder):
    start(decoder, np.ones((1, P), int), None, max_length=7)
    if decoder[0].config.position_encoding == "relative":  # which has no end
        start(decoder, np.ones((1, P), int), None, max_length=8)
        return
    with pytest.raises(
        InputError,
        match="max_length must be at most 7 after 5 tokens for max_positions = 11, got 8",
    ):
        start(decoder, np.ones((1, P), int), None, max_length=8)
