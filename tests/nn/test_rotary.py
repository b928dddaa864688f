"""Rotary positions: what a rotation keeps, and what products of rotated vectors depend on."""

import jax
import jax.numpy as jnp
import numpy as np

from flax_transformer.nn.rotary import RotaryConfig, rotary_frequencies, rotate

B, T, N, H = 2, 5, 3, 6
VECTORS = jax.random.normal(jax.random.key(0), (B, T, N, H))
OTHERS = jax.random.normal(jax.random.key(1), (B, T, N, H))
POSITIONS = jnp.arange(T)[None]


def test_rotation_keeps_lengths_and_position_zero():
    rotated = rotate(VECTORS, POSITIONS)
    np.testing.assert_allclose(
        jnp.linalg.norm(rotated, axis=-1), jnp.linalg.norm(VECTORS, axis=-1), rtol=1e-5
    )
    np.testing.assert_array_equal(rotated[:, 0], VECTORS[:, 0])
    assert jnp.abs(rotated - VECTORS)[:, 1:].min(axis=(0, 1, 2)).max() > 1e-3


def test_products_depend_on_the_difference_of_positions_alone():
    def products(shift):
        query, key = rotate(VECTORS, POSITIONS + shift), rotate(OTHERS, POSITIONS + shift)
        return jnp.einsum("btnh,bsnh->bnts", query, key)

    np.testing.assert_allclose(products(0), products(1000), atol=2e-3)
    assert jnp.abs(products(0) - jnp.einsum("btnh,bsnh->bnts", VECTORS, OTHERS)).max() > 0.1


def test_rotation_is_multiplication_by_complex_units():
    """Equation 34 of the paper, pair by pair, for another base."""
    rotated = np.asarray(rotate(VECTORS, POSITIONS, RotaryConfig(base=100.0)))
    pairs = np.asarray(VECTORS[..., : H // 2] + 1j * VECTORS[..., H // 2 :])
    for t in range(T):
        units = np.exp(1j * t / 100.0 ** (2 * np.arange(H // 2) / H))
        expected = pairs[:, t] * units
        np.testing.assert_allclose(rotated[:, t, :, : H // 2], expected.real, atol=1e-5)
        np.testing.assert_allclose(rotated[:, t, :, H // 2 :], expected.imag, atol=1e-5)


def test_the_dtype_is_kept_and_the_angles_are_exact():
    far = jnp.full((1, T), 4001)
    rotated = rotate(VECTORS.astype(jnp.bfloat16), far)
    assert rotated.dtype == jnp.bfloat16
    expected = rotate(VECTORS.astype(jnp.bfloat16).astype(jnp.float32), far)
    np.testing.assert_allclose(rotated.astype(jnp.float32), expected, atol=0.02)


def test_scaling_divides_the_frequencies_of_long_wavelengths():
    plain = rotary_frequencies(64, RotaryConfig())
    linear = rotary_frequencies(64, RotaryConfig(scaling="linear", factor=4.0))
    np.testing.assert_allclose(linear, plain / 4, rtol=1e-6)
    scaled = rotary_frequencies(
        64, RotaryConfig(scaling="llama3", factor=4.0, original_positions=1000)
    )
    wavelengths = 2 * np.pi / plain
    is_short, is_long = wavelengths < 1000 / 4, wavelengths > 1000
    np.testing.assert_allclose(scaled[is_short], plain[is_short], rtol=1e-6)
    np.testing.assert_allclose(scaled[is_long], plain[is_long] / 4, rtol=1e-6)
    between = ~(is_short | is_long)
    assert between.any()
    assert (plain / 4 < scaled)[between].all()
    assert (scaled < plain)[between].all()
