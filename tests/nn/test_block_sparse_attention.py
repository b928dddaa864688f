"""Block-sparse attention against dense attention under the same mask, and its pattern."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxpr_flops import count_jaxpr_flops

from flax_transformer.errors import InputError
from flax_transformer.nn.attention_implementations import attend
from flax_transformer.nn.attention_mask import AttentionMask
from flax_transformer.nn.block_sparse_attention import block_sparse_attention
from flax_transformer.nn.block_sparse_pattern import (
    BlockSparseConfig,
    block_pattern,
    block_sparse_mask,
)
from flax_transformer.nn.dot_product import dot_product_attention
from flax_transformer.nn.masks import make_padding_mask

B, N, K, H = 2, 4, 2, 5
CONFIG = BlockSparseConfig(block_size=3, num_global_blocks=1, num_random_blocks=2, seed=1)


def draw_qkv(length):
    shapes = ((B, length, N, H), (B, length, K, H), (B, length, K, H))
    return [jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes)]


def value_and_gradients(attend, qkv):
    def weighted_sum(*args):
        outputs = attend(*args)
        return (outputs * jax.random.normal(jax.random.key(9), outputs.shape)).sum(), outputs

    function = jax.jit(
        jax.value_and_grad(weighted_sum, argnums=(0, 1, 2), has_aux=True),
    )
    (_, outputs), gradients = function(*qkv)
    return outputs, *gradients


def assert_is_dense(length, config=CONFIG, *, causal=False, padded=False, options=None, steps=2):
    options = options or {}
    qkv = draw_qkv(length)
    mask = jnp.asarray(block_sparse_mask(config, length, causal=causal))
    segment_ids = None
    if padded:
        is_token = jnp.arange(length) < jnp.array([[length], [length // 3]])
        mask = mask & make_padding_mask(is_token)
        segment_ids = is_token.astype(int)
    actual = value_and_gradients(
        lambda *args: block_sparse_attention(
            *args,
            config,
            key_segment_ids=segment_ids,
            causal=causal,
            blocks_per_step=steps,
            **options,
        ),
        qkv,
    )
    expected = value_and_gradients(lambda *args: dot_product_attention(*args, mask, **options), qkv)
    for array, other in zip(actual, expected, strict=True):
        np.testing.assert_allclose(array, other, atol=1e-5)


# Less than a block, no whole number of blocks, and many.
@pytest.mark.parametrize(("length", "causal"), [(2, False), (25, False), (30, True)])
def test_it_is_dense_attention_with_the_mask(length, causal):
    assert_is_dense(length, causal=causal, padded=True)


def test_scale_and_dropout_are_those_of_dense_attention_even_without_global_blocks():
    config = dataclasses.replace(CONFIG, num_global_blocks=0, num_window_blocks=1)
    options = {"dropout_rate": 0.3, "dropout_key": jax.random.key(5), "scale": 0.9}
    assert_is_dense(17, config, options=options, steps=100)


def test_padding_gets_no_gradients():
    qkv = draw_qkv(13)
    segment_ids = (jnp.arange(13) < jnp.array([[13], [0]])).astype(int)
    outputs, *gradients = value_and_gradients(
        lambda *args: block_sparse_attention(*args, CONFIG, key_segment_ids=segment_ids), qkv
    )
    np.testing.assert_array_equal(outputs[1], 0.0)
    for gradient in gradients:
        np.testing.assert_array_equal(gradient[1], 0.0)
        assert bool(jnp.isfinite(gradient).all())


@pytest.mark.parametrize("causal", [False, True])
def test_the_pattern_has_global_window_and_random_blocks(causal):
    config = BlockSparseConfig(num_global_blocks=2, num_window_blocks=5, num_random_blocks=3)
    pattern = block_pattern(config, 40, causal=causal)
    past = np.tril(np.ones((40, 40), bool)) if causal else np.ones((40, 40), bool)
    assert not (pattern & ~past).any()
    np.testing.assert_array_equal(pattern[:, :2], past[:, :2])
    np.testing.assert_array_equal(pattern[:2], past[:2])
    distance = np.abs(np.subtract.outer(np.arange(40), np.arange(40)))
    assert pattern[(distance <= 2) & past].all()
    chosen = pattern & (distance > 2)
    chosen[:, :2] = chosen[:2] = False
    # Far enough from the beginning, there are three blocks to choose from.
    assert (chosen[12:].sum(1) == 3).all()
    assert (chosen.sum(1) <= 3).all()


def test_the_pattern_depends_on_the_seed_alone():
    patterns = [block_pattern(BlockSparseConfig(seed=seed), 30) for seed in (0, 0, 1)]
    np.testing.assert_array_equal(patterns[0], patterns[1])
    assert (patterns[0] != patterns[2]).any()


def test_a_longer_causal_input_has_the_same_pattern_at_first():
    config = BlockSparseConfig()
    np.testing.assert_array_equal(
        block_pattern(config, 30, causal=True), block_pattern(config, 50, causal=True)[:30, :30]
    )


def test_cost_grows_linearly():
    config = BlockSparseConfig(block_size=16, num_global_blocks=1)

    def costs(length):
        array = jax.ShapeDtypeStruct((1, length, 2, 8), jnp.float32)
        gradient = jax.grad(lambda *args: block_sparse_attention(*args, config).sum(), (0, 1, 2))
        flops = count_jaxpr_flops(jax.make_jaxpr(gradient)(array, array, array).jaxpr)
        compiled = jax.jit(gradient).lower(array, array, array).compile()
        return flops, compiled.memory_analysis().temp_size_in_bytes

    for short, long in zip(costs(2048), costs(4096), strict=True):
        assert 1.8 * short < long < 2.2 * short


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_size": -1}, "block_size must not be negative"),
        ({"num_global_blocks": -1}, "num_global_blocks must not be negative"),
        ({"num_random_blocks": -1}, "num_random_blocks must not be negative"),
        ({"num_window_blocks": 2}, "num_window_blocks must be odd"),
        ({"seed": -1}, "seed must not be negative"),
    ],
)
def test_faults_of_the_config_are_named(options, message):
    with pytest.raises(InputError, match=message):
        BlockSparseConfig(**options)


def test_faults_of_the_call_are_named():
    with pytest.raises(InputError, match="blocks_per_step and block_size must be at least 1"):
        block_sparse_attention(*draw_qkv(4), CONFIG, blocks_per_step=0)


@pytest.mark.parametrize("causal", [False, True])
def test_a_description_of_a_mask_becomes_the_pattern_that_is_attended_by(causal):
    config = BlockSparseConfig(
        block_size=2, num_global_blocks=0, num_window_blocks=1, num_random_blocks=1
    )
    mask = AttentionMask(causal=causal, sparsity=config)
    qkv = draw_qkv(12)
    np.testing.assert_allclose(
        attend("xla", *qkv, mask), dot_product_attention(*qkv, mask.dense(12)), atol=1e-5
    )
