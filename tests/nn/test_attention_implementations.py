"""Every program of attention gives the same result, and is refused where it cannot be had."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_transformer.errors import InputError
from flax_transformer.nn.attention_implementations import attend, choose_program
from flax_transformer.nn.attention_mask import AttentionMask
from flax_transformer.nn.dot_product import dot_product_attention
from flax_transformer.nn.masks import make_causal_mask, make_padding_mask, make_segment_mask

B, T, N, K, H = 2, 7, 4, 2, 5

IS_TOKEN = jnp.arange(T) < jnp.array([[T], [4]])
SEGMENTS = jnp.array([[1, 1, 1, 2, 2, 0, 0], [1, 2, 2, 2, 2, 3, 3]])


@pytest.fixture(scope="module")
def qkv():
    shapes = ((B, T, N, H), (B, T, K, H), (B, T, K, H))
    return [jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes)]


@pytest.mark.parametrize(
    ("mask", "expected"),
    [
        (AttentionMask(), None),
        (AttentionMask(causal=True), make_causal_mask(T)),
        (AttentionMask(pairs=make_padding_mask(IS_TOKEN)), make_padding_mask(IS_TOKEN)),
        (
            AttentionMask(causal=True, key_segment_ids=IS_TOKEN.astype(int)),
            make_causal_mask(T) & make_padding_mask(IS_TOKEN),
        ),
        (
            AttentionMask(
                query_segment_ids=SEGMENTS,
                key_segment_ids=SEGMENTS,
                pairs=make_padding_mask(IS_TOKEN),
            ),
            make_segment_mask(SEGMENTS, SEGMENTS) & make_padding_mask(IS_TOKEN),
        ),
    ],
)
def test_a_described_mask_is_the_array(qkv, mask, expected):
    dense = mask.dense(T)
    if expected is None:
        assert dense is None
    else:
        np.testing.assert_array_equal(dense, expected)
    attended = dot_product_attention(*qkv, expected)
    for implementation in ("xla", "chunked", "auto"):
        np.testing.assert_allclose(attend(implementation, *qkv, mask), attended, atol=1e-6)


def test_masks_pass_through_transformations():
    mask = AttentionMask(causal=True, key_segment_ids=SEGMENTS)
    doubled = jax.jit(lambda mask: jax.tree.map(lambda ids: 2 * ids, mask))(mask)
    assert doubled.causal is True
    assert doubled.pairs is None
    np.testing.assert_array_equal(doubled.key_segment_ids, 2 * SEGMENTS)


def test_all_options_reach_every_program(qkv):
    bias = jax.random.normal(jax.random.key(4), (1, N, T, T))
    options = {
        "bias": bias,
        "scale": 0.8,
        "dropout_rate": 0.3,
        "dropout_key": jax.random.key(5),
        "product_dtype": "bfloat16",
    }
    xla, chunked = (
        attend(implementation, *qkv, AttentionMask(causal=True), **options)
        for implementation in ("xla", "chunked")
    )
    expected = dot_product_attention(*qkv, make_causal_mask(T), **options)
    np.testing.assert_array_equal(xla, expected)
    np.testing.assert_allclose(chunked, expected, atol=0.05)


def choose(implementation, length, dtype="bfloat16", head_dim=64):
    return choose_program(
        implementation, (1, length, 2, head_dim), length, dtype, has_pairs=False, has_dropout=False
    )


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="for where there is no GPU")
def test_auto_takes_chunks_for_long_inputs():
    assert [choose("auto", length) for length in (16, 512, 1024, 4096)] == [
        "xla",
        "xla",
        "chunked",
        "chunked",
    ]
    assert [choose(name, 4096) for name in ("xla", "chunked")] == ["xla", "chunked"]


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="for where there is no GPU")
def test_cudnn_without_a_gpu_is_refused_in_one_line(qkv):
    with pytest.raises(InputError, match="needs an NVIDIA GPU") as caught:
        attend("cudnn", *qkv, AttentionMask())
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="cuDNN needs an NVIDIA GPU")
def test_cudnn_is_the_same():
    assert choose("auto", 128) == "cudnn"
    assert choose("auto", 128, dtype="float32") == "xla"
    with pytest.raises(InputError, match="head_dim"):
        choose("cudnn", 128, head_dim=20)
    qkv = [jax.random.normal(jax.random.key(i), (2, 64, 4, 32), jnp.bfloat16) for i in range(3)]
    segment_ids = jnp.ones((2, 64), int).at[:, :5].set(0)
    for mask in (
        AttentionMask(causal=True),
        AttentionMask(causal=True, key_segment_ids=segment_ids),
        AttentionMask(query_segment_ids=segment_ids, key_segment_ids=segment_ids),
    ):
        results = [
            jax.value_and_grad(
                lambda *args, name=name, mask=mask: jnp.square(
                    attend(name, *args, mask).astype("float32")
                ).sum(),
                argnums=(0, 1, 2),
            )(*qkv)
            for name in ("xla", "cudnn")
        ]
        for array, other in zip(*map(jax.tree.leaves, results), strict=True):
            np.testing.assert_allclose(array.astype("float32"), other.astype("float32"), rtol=0.05)
