"""Masks, element by element, against what their docstrings promise."""

import itertools

import jax.numpy as jnp
import numpy as np

from flax_transformer.nn.masks import (
    make_ancestry_mask,
    make_causal_mask,
    make_segment_mask,
)

B, T, S, W = 2, 5, 7, 3


def test_segments_attend_to_themselves_and_padding_to_nothing():
    rng = np.random.default_rng(0)
    query_ids, key_ids = rng.integers(0, 4, (B, T)), rng.integers(0, 4, (B, S))
    mask = make_segment_mask(jnp.asarray(query_ids), jnp.asarray(key_ids))
    assert mask.shape == (B, 1, T, S)
    for b, t, s in itertools.product(range(B), range(T), range(S)):
        expected = query_ids[b, t] == key_ids[b, s] and key_ids[b, s] != 0
        assert bool(mask[b, 0, t, s]) == expected


def test_a_causal_mask_shows_the_past():
    mask = make_causal_mask(T)
    for t, s in itertools.product(range(T), repeat=2):
        assert bool(mask[0, 0, t, s]) == (s <= t)


def test_ancestry_shows_the_slots_that_a_hypothesis_was_written_to():
    ancestry = np.random.default_rng(1).integers(0, W, (B, W, T))
    for index in range(T):
        mask = make_ancestry_mask(jnp.asarray(ancestry), jnp.array(index))
        assert mask.shape == (B, 1, W, T * W)
        for b, w, t, writer in itertools.product(range(B), range(W), range(T), range(W)):
            expected = t <= index and ancestry[b, w, t] == writer
            assert bool(mask[b, 0, w, t * W + writer]) == expected
