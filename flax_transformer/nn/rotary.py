"""Rotary position embedding: positions as rotations of queries and keys (arXiv 2104.09864)."""

import jax.numpy as jnp

from flax_transformer.array_types import Array, Float, Int


def rotate(
    vectors: Float[Array, "B T N H"], positions: Int[Array, "#B T"], *, base: float = 10_000.0
) -> Float[Array, "B T N H"]:
    """Rotate each pair of elements of a head by an angle that grows with the position.

    Elements i and i + H/2 are the two coordinates of pair i, which is turned by
    ``position / base^(2i / H)`` radians (equation 34 of the paper, whose pairs are neighbours; the
    order here is that of most public checkpoints). The product of a rotated query and a rotated
    key depends on the difference of their positions alone. Computed in float32; the result has the
    dtype of ``vectors``.

    Args:
        vectors: queries or keys; H must be even.
        positions: from 0.
        base: the longest wavelength is about ``2π · base`` positions.

    >>> rotate(jnp.array([[[[3.0, 4.0]]]]), jnp.array([[0]]))
    Array([[[[3., 4.]]]], dtype=float32)
    """
    half = vectors.shape[-1] // 2
    frequencies = base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = positions[:, :, None, None].astype(jnp.float32) * frequencies
    sines, cosines = jnp.sin(angles), jnp.cos(angles)
    first, second = jnp.split(vectors.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate(
        [first * cosines - second * sines, second * cosines + first * sines], axis=-1
    )
    return rotated.astype(vectors.dtype)
