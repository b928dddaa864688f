"""Rotary position embedding: positions as rotations of queries and keys (arXiv 2104.09864)."""

import dataclasses
import math
from typing import Literal, TypeAlias

import jax.numpy as jnp

from flax_transformer.array_types import Array, Float, Int

RotaryScaling: TypeAlias = Literal["none", "linear", "llama3"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RotaryConfig:
    """How far positions turn the pairs of elements of a head; see :func:`rotary_frequencies`.

    Attributes:
        base: the longest wavelength is about ``2π · base`` positions.
        scaling: how the frequencies of a model are lowered that was extended to longer texts.
        factor: by which they are divided; without ``scaling`` it is not read.
        low_frequency_factor: of ``"llama3"``; wavelengths over ``original_positions`` divided by
            it are lengthened by the whole of ``factor``.
        high_frequency_factor: likewise; those under ``original_positions`` divided by it are kept.
        original_positions: of ``"llama3"``, the positions that the model was first trained with.
    """

    base: float = 10_000.0
    scaling: RotaryScaling = "none"
    factor: float = 1.0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    original_positions: int = 8192


def rotary_frequencies(head_dim: int, config: RotaryConfig) -> Float[Array, " pairs"]:
    """Return by how many radians a position turns each pair of a head, float32.

    Pair i is turned by ``θ_i = base^(-2i / H)`` a position. Scaling replaces that by

    - ``"linear"``: ``θ_i / factor``, so that positions are interpolated (Chen et al., 2023, arXiv
      2306.15595);
    - ``"llama3"``: ``(1 - s) θ_i / factor + s θ_i`` with ``s = (original_positions · θ_i / 2π -
      low) / (high - low)``, at least 0 and at most 1: short wavelengths are kept and long ones
      interpolated (Llama 3.1, function ``apply_scaling`` of Meta's reference implementation,
      models/llama3/reference_impl/model.py of meta-llama/llama-models).

    >>> rotary_frequencies(4, RotaryConfig(scaling="linear", factor=2.0))
    Array([0.5  , 0.005], dtype=float32)
    """
    half = head_dim // 2
    frequencies = config.base ** (-jnp.arange(half, dtype=jnp.float32) / half)
    match config.scaling:
        case "none":
            return frequencies
        case "linear":
            return frequencies / config.factor
        case "llama3":
            turns = config.original_positions * frequencies / (2 * math.pi)
            low, high = config.low_frequency_factor, config.high_frequency_factor
            kept = jnp.clip((turns - low) / (high - low), 0.0, 1.0)
            return (1 - kept) * frequencies / config.factor + kept * frequencies


def rotate(
    vectors: Float[Array, "B T N H"],
    positions: Int[Array, "#B T"],
    config: RotaryConfig = RotaryConfig(),
) -> Float[Array, "B T N H"]:
    """Rotate each pair of elements of a head by an angle that grows with the position.

    Elements i and i + H/2 are the two coordinates of pair i, which is turned by the position times
    its frequency (equation 34 of the paper, whose pairs are neighbours; the order here is that of
    most public checkpoints). The product of a rotated query and a rotated key depends on the
    difference of their positions alone. Computed in float32; the result has the dtype of
    ``vectors``.

    Args:
        vectors: queries or keys; H must be even.
        positions: from 0.
        config: of the frequencies.

    >>> rotate(jnp.array([[[[3.0, 4.0]]]]), jnp.array([[0]]))
    Array([[[[3., 4.]]]], dtype=float32)
    """
    angles = positions[:, :, None, None].astype(jnp.float32) * rotary_frequencies(
        vectors.shape[-1], config
    )
    sines, cosines = jnp.sin(angles), jnp.cos(angles)
    first, second = jnp.split(vectors.astype(jnp.float32), 2, axis=-1)
    rotated = jnp.concatenate(
        [first * cosines - second * sines, second * cosines + first * sines], axis=-1
    )
    return rotated.astype(vectors.dtype)
