"""Layer normalisation (arXiv 1607.06450) and root mean square normalisation (arXiv 1910.07467)."""

from typing import Literal, TypeAlias

import flax.linen as nn
import jax
import jax.numpy as jnp

from flax_transformer.array_types import Array, Float

Normalization: TypeAlias = Literal["layer", "rms"]


def layer_norm(
    inputs: Float[Array, "*B D"],
    scale: Float[Array, " D"],
    bias: Float[Array, " D"],
    *,
    epsilon: float,
) -> Float[Array, "*B D"]:
    """Shift and scale each vector to mean 0 and variance 1, then apply ``scale`` and ``bias``.

    ``scale * (x - mean) / sqrt(variance + epsilon) + bias``. The statistics are taken in float32,
    because a bfloat16 sum over D loses them; the result has the dtype of ``inputs``.

    >>> layer_norm(jnp.array([[1.0, 3.0]]), jnp.ones(2), jnp.zeros(2), epsilon=0.0)
    Array([[-1.,  1.]], dtype=float32)
    """
    x = inputs.astype(jnp.float32)
    centred = x - jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean(jnp.square(centred), axis=-1, keepdims=True)
    normalised = centred * jax.lax.rsqrt(variance + epsilon)
    return (normalised * scale + bias).astype(inputs.dtype)


class LayerNorm(nn.Module):
    """Layer normalisation with a learned scale and bias, both float32.

    Attributes:
        epsilon: added to the variance.
    """

    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, inputs: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Normalise the last dimension of ``inputs``."""
        scale = self.param("scale", nn.initializers.ones, (inputs.shape[-1],))
        bias = self.param("bias", nn.initializers.zeros, (inputs.shape[-1],))
        return layer_norm(inputs, scale, bias, epsilon=self.epsilon)


def rms_norm(
    inputs: Float[Array, "*B D"], scale: Float[Array, " D"], *, epsilon: float
) -> Float[Array, "*B D"]:
    """Scale each vector to mean square 1, then by ``scale``; no shift (Zhang and Sennrich, 2019).

    ``scale * x / sqrt(mean(x²) + epsilon)``, computed in float32; the result has the dtype of
    ``inputs``.

    >>> rms_norm(jnp.array([[1.0, 7.0]]), jnp.ones(2), epsilon=0.0)
    Array([[0.2, 1.4]], dtype=float32)
    """
    x = inputs.astype(jnp.float32)
    normalised = x * jax.lax.rsqrt(jnp.mean(jnp.square(x), axis=-1, keepdims=True) + epsilon)
    return (normalised * scale).astype(inputs.dtype)


class RMSNorm(nn.Module):
    """Root mean square normalisation with a learned scale, float32.

    Attributes:
        epsilon: added to the mean square.
    """

    epsilon: float = 1e-6

    @nn.compact
    def __call__(self, inputs: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        """Normalise the last dimension of ``inputs``."""
        scale = self.param("scale", nn.initializers.ones, (inputs.shape[-1],))
        return rms_norm(inputs, scale, epsilon=self.epsilon)


def make_norm(kind: Normalization, epsilon: float) -> LayerNorm | RMSNorm:
    """Make the normalisation of a kind.

    >>> make_norm("rms", 1e-6).epsilon
    1e-06
    """
    return RMSNorm(epsilon) if kind == "rms" else LayerNorm(epsilon)
