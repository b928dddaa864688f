"""Decoding step by step with a cache gives the logits of the whole target at once."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_transformer.errors import InputError
from flax_transformer.models.compact_cache import compact_cache, count_live_slots
from flax_transformer.models.decoder_cache import grow_cache, reorder_cache

BEAM_SIZE = 3


def start(tiny, pairs, beam_size, max_length):
    variables = {"params": tiny.params}
    encoded = tiny.model.apply(variables, pairs.source, pairs.source_mask, method="encode")
    return tiny.model.apply(
        variables,
        encoded,
        pairs.source_mask,
        beam_size=beam_size,
        max_length=max_length,
        method="init_cache",
    )


def make_step(tiny):
    return jax.jit(
        lambda tokens, cache: tiny.model.apply(
            {"params": tiny.params}, tokens, cache, method="decode_step"
        )
    )


@pytest.fixture(scope="module", params=["paper", "pre-norm", "T5", "rotary"])
def decoder(request, make_tiny):
    """A model, its compiled decoding step and its compiled full forward pass."""
    changes = {
        "paper": {},
        "pre-norm": {
            "pre_norm": True,
            "position_encoding": "learned",
            "gated_feed_forward": True,
            "share_target_output_embedding": True,
        },
        "T5": {
            "position_encoding": "relative",
            "num_relative_buckets": 8,
            "max_relative_distance": 6,
            "norm": "rms",
            "pre_norm": True,
            "scale_attention": False,
            "feed_forward_bias": False,
            "share_target_output_embedding": True,
            "scale_output": True,
        },
        "rotary": {
            "position_encoding": "rotary",
            "num_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 6,
            "attention_bias": True,
            "embedding_norm": True,
            "output_bias": True,
        },
    }
    tiny = make_tiny(**changes[request.param])
    full = jax.jit(lambda *args: tiny.model.apply({"params": tiny.params}, *args))
    return tiny, make_step(tiny), full


def test_every_step_has_the_logits_of_the_full_forward_pass(decoder, pairs):
    tiny, step, full = decoder
    expected = full(*pairs[:3])
    num_steps = pairs.target.shape[1]
    cache = start(tiny, pairs, 1, num_steps)
    for t in range(num_steps):
        logits, cache = step(pairs.target[:, t : t + 1], cache)
        assert logits.dtype == jnp.float32
        np.testing.assert_allclose(logits[:, 0], expected[:, t], atol=2e-5)


@pytest.mark.parametrize("compacted_at", [(), (3,), (2, 4)])
def test_each_hypothesis_of_a_reordered_beam_attends_to_its_own_path(decoder, pairs, compacted_at):
    tiny, step, full = decoder
    batch_size, num_steps = pairs.target.shape
    rng = np.random.default_rng(2)
    cache = start(tiny, pairs, BEAM_SIZE, min(compacted_at, default=num_steps))
    paths = np.zeros((batch_size, BEAM_SIZE, num_steps), int)
    for t in range(num_steps):
        if t:  # Some rows have several heirs, some none, as in a search.
            parents = rng.integers(0, BEAM_SIZE, (batch_size, BEAM_SIZE))
            cache = reorder_cache(cache, jnp.asarray(parents))
            paths = np.take_along_axis(paths, parents[:, :, None], axis=1)
        if t in compacted_at:
            cache = grow_cache(compact_exactly(cache), num_steps - t)
        paths[:, :, t] = rng.integers(1, tiny.config.target_vocab_size, paths.shape[:2])
        logits, cache = step(jnp.asarray(paths[:, :, t]), cache)
        for w in range(BEAM_SIZE):
            expected = full(pairs.source, paths[:, w], pairs.source_mask)
            np.testing.assert_allclose(logits[:, w], expected[:, t], atol=2e-5)


def compact_exactly(cache):
    """Leave no more slots than the row that needs most of them."""
    compacted = compact_cache(cache, int(count_live_slots(cache).max()))
    before, after = (c.self_attention[0].keys.shape[-1] for c in (cache, compacted))
    assert after < before
    np.testing.assert_array_equal(count_live_slots(compacted), count_live_slots(cache))
    return compacted


def test_a_sentence_without_padding_needs_no_mask(decoder, pairs):
    tiny, step, full = decoder
    whole = pairs._replace(source_mask=None)
    cache = start(tiny, whole, 1, 2)
    expected = full(*pairs[:2])
    for t in range(2):
        logits, cache = step(pairs.target[:, t : t + 1], cache)
        np.testing.assert_allclose(logits[:, 0], expected[:, t], atol=2e-5)


def test_a_step_past_the_end_of_the_cache_is_not_silent(decoder, pairs):
    tiny, step, _ = decoder
    cache = start(tiny, pairs, 1, 2)
    for t in range(3):
        logits, cache = step(pairs.target[:, t : t + 1], cache)
        assert bool(jnp.isnan(logits).all()) == (t == 2)


def test_keys_and_values_of_the_source_are_kept_once_a_sentence(tiny, pairs):
    cache = start(tiny, pairs, BEAM_SIZE, 2)
    batch_size, source_length = pairs.source.shape
    for layer in cache.cross_attention:
        assert layer.keys.shape == (batch_size, 3, 13, source_length)
    _, stepped = make_step(tiny)(jnp.ones((batch_size, BEAM_SIZE), int), cache)
    chex.assert_trees_all_equal(stepped.cross_attention, cache.cross_attention)


def test_a_bfloat16_cache_is_bfloat16_and_close(make_tiny, tiny, pairs):
    low = make_tiny(compute_dtype="bfloat16")
    caches = start(low, pairs, 1, 2), start(tiny, pairs, 1, 2)
    assert caches[0].self_attention[0].keys.dtype == jnp.bfloat16
    token = pairs.target[:, :1]
    (logits, cache), (expected, _) = (
        make_step(low)(token, caches[0]),
        make_step(tiny)(token, caches[1]),
    )
    chex.assert_trees_all_equal_dtypes(cache, caches[0])
    assert logits.dtype == jnp.float32
    assert float(jnp.abs(logits - expected).max()) < 0.1 * float(expected.std())


def test_all_steps_are_traced_once(tiny, pairs):
    chex.clear_trace_counter()
    step = jax.jit(
        chex.assert_max_traces(
            lambda tokens, cache: tiny.model.apply(
                {"params": tiny.params}, tokens, cache, method="decode_step"
            ),
            n=1,
        )
    )
    cache = start(tiny, pairs, BEAM_SIZE, 5)
    tokens = jnp.ones((len(pairs.source), BEAM_SIZE), jnp.int32)
    for _ in range(5):
        logits, cache = step(tokens, cache)
        tokens = logits.argmax(-1).astype(jnp.int32)
        cache = reorder_cache(cache, jnp.zeros_like(tokens))


def test_a_cache_longer_than_max_positions_is_refused(tiny, pairs):
    if tiny.model.config.position_encoding == "relative":  # which has no end
        start(tiny, pairs, 1, 20)
        return
    with pytest.raises(
        InputError, match=r"max_length must be at most 19 .*max_positions = 19, got 20"
    ):
        start(tiny, pairs, 1, 20)


def test_stacked_layers_are_refused_with_the_remedy(make_tiny, pairs):
    with pytest.raises(InputError, match=r"scan_layers must be off to decode.*unstack_layers"):
        start(make_tiny(scan_layers=True), pairs, 1, 5)
