"""Chunked attention against the plain one: what it returns, its gradients, and what it keeps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxpr_flops import count_jaxpr_flops
from jaxpr_shapes import array_shapes, product_dtypes

from flax_transformer.errors import InputError
from flax_transformer.nn.chunked_attention import chunked_attention
from flax_transformer.nn.dot_product import dot_product_attention
from flax_transformer.nn.masks import make_causal_mask, make_segment_mask

B, T, S, N, H = 2, 11, 13, 6, 5
CHUNKS = {"chunk_size": 4}


def draw(seed, *shape):
    return jax.random.normal(jax.random.key(seed), shape)


def draw_qkv(num_key_heads=N, num_queries=T, num_keys=S):
    keys_shape = (B, num_keys, num_key_heads, H)
    return draw(0, B, num_queries, N, H), draw(1, *keys_shape), draw(2, *keys_shape)


def value_and_gradients(attend, *arrays):
    """Return what ``attend`` makes of ``arrays``, and the gradients of a weighted sum of it."""

    def weighted_sum(*arrays):
        outputs = attend(*arrays).astype(jnp.float32)
        return (outputs * draw(9, *outputs.shape)).sum(), outputs

    argnums = tuple(range(len(arrays)))
    function = jax.jit(
        jax.value_and_grad(weighted_sum, argnums=argnums, has_aux=True),
    )
    (_, outputs), gradients = function(*arrays)
    return outputs, *gradients


def assert_same(actual, expected, atol=1e-5):
    for array, other in zip(actual, expected, strict=True):
        assert array.dtype == other.dtype
        np.testing.assert_allclose(array, other, atol=atol)


def test_it_is_dot_product_attention():
    qkv = draw_qkv()
    assert_same(
        value_and_gradients(lambda *args: chunked_attention(*args, **CHUNKS), *qkv),
        value_and_gradients(dot_product_attention, *qkv),
    )


@pytest.mark.parametrize("shape", [(B, N, T, S), (1, 1, T, 1)])
def test_masks_and_biases_of_every_shape_are_those_of_the_plain_one(shape):
    mask = jax.random.bernoulli(jax.random.key(3), 0.6, shape)
    arrays = (*draw_qkv(2), draw(4, *shape))

    def attend(attention, options):
        return lambda query, key, value, bias: attention(
            query, key, value, mask, bias=bias, scale=0.7, **options
        )

    assert_same(
        value_and_gradients(attend(chunked_attention, CHUNKS), *arrays),
        value_and_gradients(attend(dot_product_attention, {}), *arrays),
    )


def test_causal_needs_no_mask():
    qkv = draw_qkv(num_keys=T)
    expected = value_and_gradients(
        lambda *args: dot_product_attention(*args, make_causal_mask(T)), *qkv
    )
    causal = functools.partial(chunked_attention, causal=True)
    assert_same(value_and_gradients(functools.partial(causal, chunk_size=3), *qkv), expected)
    for chunk_size in (1, T, 100):
        np.testing.assert_allclose(causal(*qkv, chunk_size=chunk_size), expected[0], atol=1e-5)


def test_segments_need_no_mask():
    of_queries = jnp.array([[1] * 4 + [2] * 5 + [0] * 2, [1] * 11])
    of_keys = jnp.array([[1] * 6 + [2] * 7, [1] * 9 + [0] * 4])
    qkv = draw_qkv(3)
    segments = {"query_segment_ids": of_queries, "key_segment_ids": of_keys}
    mask = make_segment_mask(of_queries, of_keys)
    assert_same(
        value_and_gradients(lambda *args: chunked_attention(*args, **segments, **CHUNKS), *qkv),
        value_and_gradients(lambda *args: dot_product_attention(*args, mask), *qkv),
    )


def test_dropout_drops_the_same_weights():
    dropout = {"dropout_rate": 0.3, "dropout_key": jax.random.key(5)}
    qkv = draw_qkv(2)
    dropped = value_and_gradients(lambda *args: chunked_attention(*args, **dropout, **CHUNKS), *qkv)
    assert_same(
        dropped, value_and_gradients(lambda *args: dot_product_attention(*args, **dropout), *qkv)
    )
    assert float(jnp.abs(dropped[0] - dot_product_attention(*qkv)).max()) > 0.1


def test_a_query_without_keys_gets_zeros_and_finite_gradients():
    qkv = draw_qkv()
    mask = jnp.ones((B, 1, T, S), bool).at[:, :, 2].set(False)
    outputs, of_query, of_key, of_value = value_and_gradients(
        lambda *args: chunked_attention(*args, mask, **CHUNKS), *qkv
    )
    np.testing.assert_array_equal(outputs[:, 2], 0.0)
    np.testing.assert_array_equal(of_query[:, 2], 0.0)
    assert all(bool(jnp.isfinite(each).all()) for each in (outputs, of_query, of_key, of_value))
    assert bool((outputs[:, 3] != 0.0).all())


def test_huge_logits_do_not_overflow():
    query, key, value = draw_qkv()
    outputs = chunked_attention(query * 1e4, key * 1e4, value, **CHUNKS)
    assert_same([outputs], [dot_product_attention(query * 1e4, key * 1e4, value)])


def test_narrow_products_give_float32_sums():
    qkv = draw_qkv(2)

    def attend(*args):
        return chunked_attention(*args, product_dtype="bfloat16", **CHUNKS)

    def loss(*args):
        return attend(*args).astype(jnp.float32).sum()

    assert_same(
        value_and_gradients(attend, *qkv),
        value_and_gradients(dot_product_attention, *qkv),
        atol=0.1,
    )
    jaxpr = jax.make_jaxpr(jax.grad(loss, argnums=(0, 1, 2)))(*qkv).jaxpr
    assert product_dtypes(jaxpr) == [("bfloat16", "bfloat16", "float32")] * 7
    low = tuple(each.astype(jnp.bfloat16) for each in qkv)
    assert jax.eval_shape(attend, *low).dtype == jnp.bfloat16
    assert jax.eval_shape(jax.grad(loss), *low).dtype == jnp.bfloat16


@pytest.mark.parametrize("causal", [False, True])
def test_neither_pass_has_an_array_of_pairs(causal):
    length = 64
    arrays = [draw(i, 1, length, 2, 3) for i in range(3)]
    segment_ids = jnp.ones((1, length), int)

    def loss(attention, options):
        return lambda *args: attention(*args, **options).sum()

    options = {
        "causal": causal,
        "query_segment_ids": segment_ids,
        "key_segment_ids": segment_ids,
        "dropout_rate": 0.1,
        "dropout_key": jax.random.key(0),
        "chunk_size": 8,
    }
    for attention, given, has_pairs in (
        (chunked_attention, options, False),
        (dot_product_attention, {}, True),
    ):
        for function in (loss(attention, given), jax.grad(loss(attention, given), (0, 1, 2))):
            shapes = array_shapes(jax.make_jaxpr(function)(*arrays).jaxpr)
            assert any(np.prod(shape) >= length**2 for shape in shapes) == has_pairs


def test_memory_grows_with_the_length_and_not_with_its_square():
    def temporary_bytes(length):
        array = jax.ShapeDtypeStruct((1, length, 2, 8), jnp.float32)
        gradient = jax.grad(
            lambda *args: chunked_attention(*args, causal=True, chunk_size=16).sum(),
            (0, 1, 2),
        )
        compiled = jax.jit(gradient).lower(array, array, array).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporary_bytes(4096) < 2.2 * temporary_bytes(2048)
    assert temporary_bytes(4096) < 4 * 4096**2


def test_causal_leaves_out_the_chunks_of_the_future():
    array = jax.ShapeDtypeStruct((1, 64, 1, 8), jnp.float32)

    def flops(*, causal):
        def attend(*args):
            return chunked_attention(*args, causal=causal, chunk_size=4)

        return count_jaxpr_flops(jax.make_jaxpr(attend)(array, array, array).jaxpr)

    num_chunks = 64 // 4
    assert flops(causal=True) / flops(causal=False) == (num_chunks + 1) / (2 * num_chunks)


def test_it_is_the_same_over_devices_and_under_other_transformations():
    query, key, value = draw_qkv()
    expected = value_and_gradients(dot_product_attention, query, key, value)

    def attend(*args):
        return chunked_attention(*args, **CHUNKS)

    mapped = jax.vmap(lambda *args: attend(*(each[None] for each in args))[0])
    assert_same([mapped(query, key, value)], expected[:1])
    mesh = jax.make_mesh((2, 2), ("b", "n"), axis_types=(jax.sharding.AxisType.Auto,) * 2)
    spread = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("b", None, "n"))
    placed = jax.device_put((query, key, value), spread)
    assert_same(value_and_gradients(attend, *placed), expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"chunk_size": 0}, "chunk_size must be at least 1, got 0"),
        ({"query_segment_ids": jnp.ones((B, T), int)}, "key_segment_ids must be given"),
    ],
)
def test_faults_are_named(options, message):
    with pytest.raises(InputError, match=message):
        chunked_attention(*draw_qkv(), **options)


def test_heads_that_cannot_be_shared_evenly_are_refused():
    with pytest.raises(InputError, match="multiple of that of key heads, 4, got 6"):
        chunked_attention(*draw_qkv(4))
