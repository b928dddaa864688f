"""Parameters prepared once decode as those that every call prepares."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_transformer.decoding.generate import generate
from flax_transformer.decoding.greedy import Greedy
from flax_transformer.decoding.prepare import prepare_to_decode
from flax_transformer.errors import InputError
from flax_transformer.models.encoder_only import EncoderOnly
from flax_transformer.nn.quantization import Int8Weights


def run(model, params, sources):
    return generate(
        model,
        params,
        sources.tokens,
        mask=sources.mask,
        strategy=Greedy(max_length=5),
        bos_id=1,
        eos_id=2,
        pad_id=0,
    )


def test_prepared_parameters_give_the_same(tiny, sources):
    expected = run(tiny.model, tiny.params, sources)
    actual = run(*prepare_to_decode(tiny.model, tiny.params), sources)
    jax.tree.map(np.testing.assert_array_equal, actual, expected)


def test_precisions_are_those_of_the_stored_weights(tiny):
    for precision, dtype in (("float32", jnp.float32), ("bfloat16", jnp.bfloat16)):
        model, prepared = prepare_to_decode(tiny.model, tiny.params, precision=precision)
        matrices = [leaf for leaf in jax.tree.leaves(prepared) if leaf.ndim > 1]
        assert {leaf.dtype for leaf in matrices} == {jnp.dtype(dtype)}
        assert model.config.product_dtype == precision
    _, prepared = prepare_to_decode(tiny.model, tiny.params, precision="int8")
    assert isinstance(prepared.output_kernel, Int8Weights)
    layer = prepared.model["decoder"]["layers_0"]
    assert isinstance(layer["feed_forward"]["hidden"]["kernel"], Int8Weights)
    output = layer["self_attention"]["output"]["kernel"]
    assert output.scales.shape == (tiny.config.model_dim,)
    assert prepared.model["target_embedding"]["embedding"].dtype == jnp.float32


def test_a_bias_of_zeros_is_left_out(make_tiny):
    tiny = make_tiny(output_bias=True)
    _, prepared = prepare_to_decode(tiny.model, tiny.params)
    np.testing.assert_array_equal(prepared.output_bias, tiny.params["output_bias"])
    params = {**tiny.params, "output_bias": np.zeros_like(tiny.params["output_bias"])}
    assert prepare_to_decode(tiny.model, params)[1].output_bias is None


def test_what_cannot_be_prepared_is_refused(tiny):
    with pytest.raises(InputError, match="precision must be float32, bfloat16 or int8, got 'int4'"):
        prepare_to_decode(tiny.model, tiny.params, precision="int4")
    with pytest.raises(InputError, match="model must have a decoder, got EncoderOnly"):
        prepare_to_decode(EncoderOnly(tiny.config), tiny.params)
