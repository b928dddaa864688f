"""The decoder without an encoder: against NumPy, and what its outputs depend on."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpy_reference
import pytest

from flax_transformer.errors import InputError
from flax_transformer.models.decoder_only import DecoderOnly
from flax_transformer.models.parameters import abstract_parameters, num_parameters
from flax_transformer.models.stack import stack_layers
from flax_transformer.models.transformer_config import TransformerConfig

V, T = 31, 6

CONFIG = TransformerConfig(
    architecture="decoder_only",
    source_vocab_size=V,
    target_vocab_size=V,
    model_dim=22,
    num_encoder_layers=0,
    num_decoder_layers=2,
    num_heads=3,
    head_dim=13,
    feed_forward_dim=17,
    dropout_rate=0.1,
    max_positions=19,
    share_target_output_embedding=False,
)
GPT = {
    "pre_norm": True,
    "activation": "gelu",
    "position_encoding": "learned",
    "scale_embedding": False,
    "share_target_output_embedding": True,
}


@functools.cache
def make_params(config):
    """Move all parameters from where they start: scales about 1, everything else about 0."""
    rng = np.random.default_rng(0)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray(
            float(path[-1].key == "scale") + 0.3 * rng.normal(size=leaf.shape), leaf.dtype
        ),
        abstract_parameters(DecoderOnly(dataclasses.replace(config, scan_layers=False))),
    )


@pytest.fixture(scope="module")
def logits():
    """The compiled forward pass of the tiny model, without dropout."""
    return jax.jit(functools.partial(DecoderOnly(CONFIG).apply, {"params": make_params(CONFIG)}))


def numpy_logits(params, tokens, config):
    table = params["target_embedding"]["embedding"]
    positions = params.get("target_positions", {"embedding": None})["embedding"]
    x = numpy_reference.embed(table, positions, tokens, config)
    past = np.tri(len(tokens), dtype=bool)
    for i in range(config.num_decoder_layers):
        layer = params["decoder"][f"layers_{i}"]
        x = numpy_reference.encoder_layer(layer, x, past, config)
    if config.pre_norm:
        x = numpy_reference.layer_norm(params["decoder"]["final_norm"], x, config.norm_epsilon)
    output = params["output_embedding"]["embedding"] if "output_embedding" in params else table
    return x @ np.asarray(output).T


@pytest.mark.parametrize("changes", [{}, GPT], ids=["paper", "GPT"])
def test_logits_are_the_formulas(changes):
    config = dataclasses.replace(CONFIG, **changes)
    params = make_params(config)
    tokens = np.random.default_rng(1).integers(0, V, (2, T))
    logits = jax.jit(DecoderOnly(config).apply)({"params": params}, tokens)
    assert logits.dtype == jnp.float32
    for row, expected_tokens in zip(logits, tokens, strict=True):
        expected = numpy_logits(params, expected_tokens, config)
        np.testing.assert_allclose(row, expected, rtol=1e-4, atol=1e-4)


def test_logits_depend_on_all_earlier_tokens_and_on_no_later_one():
    # One id a position, and no table but the input's: a row of it is a position.
    tokens = jnp.array([[2, 7, 1, 8, 5]])
    weights = jax.random.normal(jax.random.key(0), (V,))

    def projected_logits(table):
        params = {**make_params(CONFIG), "target_embedding": {"embedding": table}}
        return (DecoderOnly(CONFIG).apply({"params": params}, tokens) @ weights)[0]

    table = make_params(CONFIG)["target_embedding"]["embedding"]
    influence = np.abs(jax.jit(jax.jacrev(projected_logits))(table)[:, tokens[0]]).max(-1)
    for t in range(tokens.shape[1]):
        np.testing.assert_array_equal(influence[t, t + 1 :], 0.0)
        assert influence[t, : t + 1].min() > 1e-4


def test_packed_rows_give_what_their_texts_give_alone(logits):
    texts = [[3, 1, 4], [1, 5], [9, 2, 6, 5]]
    row = np.full((2, 11), 7)
    segments, positions = np.zeros_like(row), np.zeros_like(row)
    places = [(0, 1), (0, 6), (1, 0)]  # padding before, between and behind
    for text, (b, start) in zip(texts, places, strict=True):
        span = slice(start, start + len(text))
        row[b, span], segments[b, span] = text, 1 + (start > 1)
        positions[b, span] = np.arange(len(text))
    packed = logits(row, segment_ids=segments, positions=positions)
    for text, (b, start) in zip(texts, places, strict=True):
        alone = logits(np.array([text + [0] * (11 - len(text))]))[0, : len(text)]
        np.testing.assert_allclose(packed[b, start : start + len(text)], alone, atol=2e-5)


def test_padding_on_the_right_changes_nothing(logits):
    text = np.array([[3, 1, 4]])
    alone = logits(text)
    padded = logits(np.pad(text, ((0, 0), (0, 4)), constant_values=9))
    np.testing.assert_allclose(padded[:, :3], alone, atol=2e-5)
    segments = np.array([[1, 1, 1, 0, 0, 0, 0]])
    marked = logits(
        np.pad(text, ((0, 0), (0, 4))), segment_ids=segments, positions=np.arange(7)[None]
    )
    np.testing.assert_allclose(marked[:, :3], alone, atol=2e-5)


def test_a_scan_changes_nothing(logits):
    tokens = np.random.default_rng(1).integers(0, V, (2, T))
    config = dataclasses.replace(CONFIG, scan_layers=True, remat="full")
    params = stack_layers(make_params(CONFIG))
    chex.assert_trees_all_equal_shapes(params, abstract_parameters(DecoderOnly(config)))
    scanned = jax.jit(DecoderOnly(config).apply)({"params": params}, tokens)
    np.testing.assert_allclose(scanned, logits(tokens), atol=2e-5)


def test_dropout_needs_a_key_and_changes_the_logits(logits):
    tokens = np.array([[3, 1, 4]])
    apply = functools.partial(
        DecoderOnly(CONFIG).apply, {"params": make_params(CONFIG)}, deterministic=False
    )
    one, other = (jax.jit(apply)(tokens, rngs={"dropout": jax.random.key(seed)}) for seed in (0, 1))
    assert np.abs(one - other).max() > 1e-3
    assert np.abs(one - logits(tokens)).max() > 1e-3


def test_a_token_outside_the_vocabulary_gives_nan(logits):
    assert np.isnan(logits(np.array([[3, V, 4]]))[0, 1:]).all()


def test_a_row_longer_than_the_positions_is_refused():
    model = DecoderOnly(CONFIG)
    with pytest.raises(InputError, match="at most max_positions = 19 tokens long, got 20"):
        model.apply({"params": make_params(CONFIG)}, jnp.zeros((1, 20), jnp.int32))


def test_gpt3_has_175_billion_parameters():
    """Table 2.1 of arXiv 2005.14165, by the formula, and without an array."""
    layers, dim, vocab_size, max_positions = 96, 12_288, 50_257, 2048
    config = TransformerConfig(
        architecture="decoder_only",
        source_vocab_size=vocab_size,
        target_vocab_size=vocab_size,
        model_dim=dim,
        num_encoder_layers=0,
        num_decoder_layers=layers,
        num_heads=96,
        feed_forward_dim=4 * dim,
        max_positions=max_positions,
        scan_layers=True,
        **GPT,
    )
    # Attention: 4 D^2. Feed-forward: 8 D^2 and biases of 5 D. Two norms a layer and a last one.
    expected = (
        layers * (12 * dim**2 + 5 * dim + 4 * dim) + 2 * dim + (vocab_size + max_positions) * dim
    )
    assert num_parameters(abstract_parameters(DecoderOnly(config))) == expected
    assert expected / 1e9 == pytest.approx(175, rel=0.005)
