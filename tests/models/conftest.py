"""A tiny encoder-decoder whose sizes are all different, its parameters and a padded batch."""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_transformer.models.encoder_decoder import EncoderDecoder
from flax_transformer.models.transformer_config import TransformerConfig

B, S, T = 3, 7, 5

CONFIG = TransformerConfig(
    source_vocab_size=29,
    target_vocab_size=31,
    model_dim=22,
    num_encoder_layers=1,
    num_decoder_layers=2,
    num_heads=3,
    head_dim=13,
    feed_forward_dim=17,
    dropout_rate=0.1,
    max_positions=19,
    share_source_target_embedding=False,
    share_target_output_embedding=False,
)


class Tiny(NamedTuple):
    config: TransformerConfig
    model: EncoderDecoder
    params: dict


class Pairs(NamedTuple):
    source: jax.Array
    target: jax.Array
    source_mask: jax.Array
    source_lengths: tuple[int, ...]
    target_lengths: tuple[int, ...]


@pytest.fixture(scope="session")
def make_tiny():
    """Return a function of changes to the config: the model, its parameters all moved from 0."""

    def make_tiny(**changes):
        config = dataclasses.replace(CONFIG, **changes)
        model = EncoderDecoder(config)
        tokens = jnp.zeros((1, 1), int)
        shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), tokens, tokens))["params"]
        rng = np.random.default_rng(0)
        # Scales about 1, everything else about 0, none exactly: a forgotten one would not show.
        params = jax.tree_util.tree_map_with_path(
            lambda path, leaf: jnp.asarray(
                float(path[-1].key == "scale") + 0.3 * rng.normal(size=leaf.shape), leaf.dtype
            ),
            shapes,
        )
        return Tiny(config, model, params)

    return make_tiny


@pytest.fixture(scope="session")
def tiny(make_tiny):
    return make_tiny()


@pytest.fixture(scope="session")
def logits(tiny):
    """The compiled forward pass of the tiny model, without dropout."""
    return jax.jit(functools.partial(tiny.model.apply, {"params": tiny.params}))


@pytest.fixture(scope="session")
def pairs():
    """Padded pairs of different lengths; the first fills its row."""
    rng = np.random.default_rng(1)
    source = jnp.asarray(rng.integers(1, 29, (B, S)))
    target = jnp.asarray(rng.integers(1, 31, (B, T)))
    source_lengths, target_lengths = (S, 2, 3), (T, 3, 1)
    source_mask = jnp.arange(S)[None] < jnp.array(source_lengths)[:, None]
    return Pairs(source, target, source_mask, source_lengths, target_lengths)
