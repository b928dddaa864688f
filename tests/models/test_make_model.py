import dataclasses

import jax
import jax.numpy as jnp
import pytest

from flax_transformer.models.decoder_only import DecoderOnly
from flax_transformer.models.encoder_decoder import EncoderDecoder
from flax_transformer.models.make_model import make_model
from flax_transformer.models.parameters import abstract_parameters, init_parameters
from flax_transformer.models.transformer_config import TransformerConfig

ENCODER_DECODER = TransformerConfig(
    source_vocab_size=7,
    target_vocab_size=7,
    model_dim=4,
    num_encoder_layers=1,
    num_decoder_layers=1,
    num_heads=2,
    feed_forward_dim=3,
    max_positions=5,
)
DECODER_ONLY = dataclasses.replace(
    ENCODER_DECODER, architecture="decoder_only", num_encoder_layers=0
)


@pytest.mark.parametrize(
    ("config", "module"), [(ENCODER_DECODER, EncoderDecoder), (DECODER_ONLY, DecoderOnly)]
)
def test_the_architecture_is_that_of_the_config(config, module):
    model = make_model(config)
    assert type(model) is module
    assert model.config == config


def test_a_decoder_alone_has_no_parameters_of_a_source():
    names = set(abstract_parameters(make_model(DECODER_ONLY)))
    assert names == {"target_embedding", "decoder"}
    layer = abstract_parameters(make_model(DECODER_ONLY))["decoder"]["layers_0"]
    assert not any("cross" in name for name in layer)


@pytest.mark.parametrize("config", [ENCODER_DECODER, DECODER_ONLY])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_parameters_have_the_dtype_asked_for(config, dtype):
    full = make_model(config)
    low = make_model(dataclasses.replace(config, param_dtype=dtype))
    assert {leaf.dtype for leaf in jax.tree.leaves(abstract_parameters(low))} == {jnp.dtype(dtype)}
    key = jax.random.key(0)
    expected = jax.jit(lambda: init_parameters(full, key))()
    actual = jax.jit(lambda: init_parameters(low, key))()
    for ours, theirs in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert jnp.array_equal(ours, theirs.astype(dtype))
