"""What the tests of decoding share: a tiny model whose outputs vary, and padded sources."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_transformer.models.encoder_decoder import EncoderDecoder
from flax_transformer.models.transformer_config import TransformerConfig

PAD, BOS, EOS = 0, 1, 2

CONFIG = TransformerConfig(
    source_vocab_size=13,
    target_vocab_size=11,
    model_dim=14,
    num_encoder_layers=1,
    num_decoder_layers=2,
    num_heads=2,
    feed_forward_dim=19,
    max_positions=17,
    share_source_target_embedding=False,
    share_target_output_embedding=False,
)


class Tiny(NamedTuple):
    config: TransformerConfig
    model: EncoderDecoder
    params: dict


class Sources(NamedTuple):
    tokens: np.ndarray
    mask: np.ndarray


@pytest.fixture(autouse=True, scope="module")
def compile_quickly():
    """Compile without optimisation: most programs here run once or twice."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="session")
def make_tiny():
    """Return a function of changes to the config: the model and its parameters."""

    def make_tiny(**changes):
        config = dataclasses.replace(CONFIG, **changes)
        model = EncoderDecoder(config)
        tokens = jnp.zeros((1, 1), int)
        shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), tokens, tokens))["params"]
        rng = np.random.default_rng(6)
        # With most random weights every output repeats a token or two; with these they vary.
        params = jax.tree_util.tree_map_with_path(
            lambda path, leaf: (
                float(path[-1].key == "scale") + 0.3 * rng.normal(size=leaf.shape)
            ).astype(np.float32),
            shapes,
        )
        return Tiny(config, model, params)

    return make_tiny


@pytest.fixture(scope="session")
def tiny(make_tiny):
    return make_tiny()


@pytest.fixture(scope="session")
def sources():
    """Padded sources; the first fills its row."""
    tokens = np.random.default_rng(1).integers(3, 13, (7, 5))
    mask = np.arange(5) < np.array([5, 2, 3, 5, 1, 4, 3])[:, None]
    return Sources(np.where(mask, tokens, PAD), mask)
