"""Models compute the same whatever computes their attention."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxpr_shapes import array_shapes

from flax_transformer.errors import InputError
from flax_transformer.models.make_model import make_model
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.nn.block_sparse_pattern import (
    NO_SPARSITY,
    BlockSparseConfig,
    block_sparse_mask,
)
from flax_transformer.nn.blocks import EncoderLayer

ENCODER_LAYER_CALL = EncoderLayer.__call__

LENGTH = 10
TOKENS = jnp.arange(2 * LENGTH).reshape(2, LENGTH) % 7 + 1
SEGMENT_IDS = jnp.array([[1] * 4 + [2] * 6, [1] * 3 + [2] * 5 + [0] * 2])

CONFIG = TransformerConfig(
    architecture="decoder_only",
    num_encoder_layers=0,
    num_decoder_layers=2,
    source_vocab_size=11,
    target_vocab_size=11,
    model_dim=12,
    num_heads=3,
    feed_forward_dim=8,
    max_positions=2048,
)
ENCODER_DECODER = dataclasses.replace(
    CONFIG, architecture="encoder_decoder", num_encoder_layers=1, position_encoding="relative"
)


@pytest.mark.parametrize(
    "config", [CONFIG, dataclasses.replace(CONFIG, scan_layers=True, remat="full"), ENCODER_DECODER]
)
def test_chunked_models_are_the_same(config):
    is_pair = config.architecture == "encoder_decoder"
    inputs = (TOKENS, TOKENS[:, ::-1]) if is_pair else (TOKENS,)
    segments = {"segment_ids": SEGMENT_IDS}
    if is_pair:
        segments = {"source_segment_ids": SEGMENT_IDS, "target_segment_ids": SEGMENT_IDS}
    params = make_model(config).init(jax.random.key(0), *inputs)["params"]

    def loss_and_gradients(implementation):
        model = make_model(dataclasses.replace(config, attention_implementation=implementation))

        def loss(params):
            logits = model.apply({"params": params}, *inputs, **segments)
            return (logits * jax.random.normal(jax.random.key(1), logits.shape)).mean()

        return jax.jit(jax.value_and_grad(loss))(params)

    expected, actual = map(loss_and_gradients, ("xla", "chunked"))
    for array, other in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(array, other, atol=1e-5)


def test_a_long_chunked_decoder_has_no_array_of_pairs():
    length = 2048
    tokens = jax.ShapeDtypeStruct((1, length), jnp.int32)

    def largest_array(implementation):
        model = make_model(dataclasses.replace(CONFIG, attention_implementation=implementation))
        params = jax.eval_shape(model.init, jax.random.key(0), tokens)["params"]

        def loss(params, tokens):
            return model.apply({"params": params}, tokens, segment_ids=tokens).sum()

        jaxpr = jax.make_jaxpr(jax.grad(loss))(params, tokens).jaxpr
        return max(np.prod(shape, initial=1) for shape in array_shapes(jaxpr))

    assert largest_array("auto") < length**2 <= largest_array("xla")


def test_an_implementation_that_there_is_not_is_refused():
    with pytest.raises(InputError, match="attention_implementation must be"):
        dataclasses.replace(CONFIG, attention_implementation="flash")


@pytest.mark.parametrize("architecture", ["encoder_only", "encoder_decoder"])
@pytest.mark.parametrize("options", [{"mask": SEGMENT_IDS != 0}, {"segment_ids": SEGMENT_IDS}])
def test_a_sparse_encoder_is_a_dense_one_under_the_same_mask(architecture, options, monkeypatch):
    sparsity = BlockSparseConfig(
        block_size=2, num_global_blocks=1, num_window_blocks=1, num_random_blocks=1
    )
    config = dataclasses.replace(
        CONFIG,
        architecture=architecture,
        num_encoder_layers=2,
        num_decoder_layers=2 if architecture == "encoder_decoder" else 0,
        encoder_sparsity=sparsity,
    )
    model = make_model(config)
    inputs = (TOKENS, TOKENS) if architecture == "encoder_decoder" else (TOKENS,)
    variables = model.init(jax.random.key(0), *inputs)
    plain = make_model(dataclasses.replace(config, encoder_sparsity=NO_SPARSITY))

    def encode(model):
        mask = options.get("mask")
        return model.apply(
            variables, TOKENS, mask, segment_ids=options.get("segment_ids"), method="encode"
        )

    def add_pattern(layer, states, mask, **options):
        dense = mask.dense(LENGTH) & block_sparse_mask(sparsity, LENGTH)
        return ENCODER_LAYER_CALL(layer, states, dense, **options)

    actual, everything = encode(model), encode(plain)
    monkeypatch.setattr(EncoderLayer, "__call__", add_pattern)
    is_token = np.asarray(SEGMENT_IDS != 0)
    np.testing.assert_allclose(actual[is_token], encode(plain)[is_token], atol=1e-5)
    assert abs(actual - everything)[is_token].max() > 1e-2


def test_sparsity_is_refused_where_it_has_no_meaning():
    with pytest.raises(InputError, match="must be 0 without an encoder"):
        dataclasses.replace(CONFIG, encoder_sparsity=BlockSparseConfig())
    with pytest.raises(InputError, match="must be 0 when position_encoding is relative"):
        dataclasses.replace(ENCODER_DECODER, encoder_sparsity=BlockSparseConfig())
