"""The key/value cache: what is written where."""

import jax
import jax.numpy as jnp
import numpy as np

from flax_transformer.nn.kv_cache import as_key_values, init_key_values, write_key_values

B, W, N, H, T = 2, 3, 5, 7, 4


def test_steps_written_one_by_one_are_the_whole_sequence():
    key, value = (jax.random.normal(jax.random.key(i), (B, T * W, N, H)) for i in (0, 1))
    cache = init_key_values(B, N, H, T * W, dtype=jnp.float32)
    for t in range(T):
        rows = slice(t * W, (t + 1) * W)
        cache = write_key_values(cache, key[:, rows], value[:, rows], jnp.array(t * W))
    whole = as_key_values(key, value)
    np.testing.assert_array_equal(cache.keys, whole.keys)
    np.testing.assert_array_equal(cache.values, whole.values)
    np.testing.assert_array_equal(whole.keys[1, 2, :, 3], key[1, 3, 2])
    np.testing.assert_array_equal(whole.values[1, 2, 3], value[1, 3, 2])


def test_a_step_leaves_other_slots_alone_and_keeps_the_dtype():
    empty = init_key_values(B, N, H, T * W, dtype=jnp.bfloat16)
    ones = jnp.ones((B, W, N, H))
    cache = write_key_values(empty, ones, ones, jnp.array(2 * W))
    written = np.zeros(T * W)
    written[2 * W : 3 * W] = 1
    assert cache.keys.dtype == cache.values.dtype == jnp.bfloat16
    np.testing.assert_array_equal(
        cache.keys.astype(jnp.float32), np.broadcast_to(written, (B, N, H, T * W))
    )
    np.testing.assert_array_equal(
        cache.values.astype(jnp.float32),
        np.broadcast_to(written[:, None], (B, N, T * W, H)),
    )
