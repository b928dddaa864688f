"""Weights of eight bits, multiplied as such.

A weight is stored as an integer of -127 to 127 and shares a scale with those that make the same
number of the result. What it is multiplied with is rounded in the same way on the spot, one scale
for each row, so that the products and their sums are of integers and exact.
"""

from typing import NamedTuple

import jax.numpy as jnp

from flax_transformer.array_types import Array, Float, Int

_LARGEST = 127.0


class Int8Weights(NamedTuple):
    """Weights ``values * scales``.

    Attributes:
        values: int8, of the shape of the weights.
        scales: float32; one for each number of the result, of the axes of ``values`` that are not
            summed over.
    """

    values: Int[Array, "..."]
    scales: Float[Array, "..."]


def quantize(weights: Float[Array, "..."], *, num_in_axes: int) -> Int8Weights:
    """Round weights of which the first ``num_in_axes`` axes are summed over.

    >>> quantize(jnp.array([[1.27, -0.5], [0.5, 0.0]]), num_in_axes=1)
    Int8Weights(values=Array([[ 127, -127],
           [  50,    0]], dtype=int8), scales=Array([0.01      , 0.00393701], dtype=float32))
    """
    values, scales = _round(weights.astype(jnp.float32), tuple(range(num_in_axes)))
    return Int8Weights(values, scales.reshape(weights.shape[num_in_axes:]))


def quantized_einsum(
    equation: str, left: Float[Array, "..."], right: Int8Weights
) -> Float[Array, "..."]:
    """Return the float32 product of ``left``, rounded row by row, with quantized weights.

    Args:
        equation: whose result has the axes of ``left`` that are not summed over, and then those of
            ``right``.
        left: of any dtype.
        right: the weights.

    >>> weights = quantize(jnp.array([[1.27, -0.5], [0.5, 0.0]]), num_in_axes=1)
    >>> product = quantized_einsum("ab,bc->ac", jnp.array([[1.0, 0.0]]), weights)
    >>> [round(float(value), 2) for value in product[0]]
    [1.27, -0.5]
    """
    inputs, result = equation.split("->")
    left_axes = inputs.split(",")[0]
    summed = tuple(place for place, axis in enumerate(left_axes) if axis not in result)
    values, scales = _round(left.astype(jnp.float32), summed)
    sums = jnp.einsum(equation, values, right.values, preferred_element_type=jnp.int32)
    scales = scales.reshape(
        [size for place, size in enumerate(scales.shape) if place not in summed]
        + [1] * right.scales.ndim
    )
    return sums.astype(jnp.float32) * (scales * right.scales)


def _round(
    values: Float[Array, "..."], axes: tuple[int, ...]
) -> tuple[Int[Array, "..."], Float[Array, "..."]]:
    """Return integers and the scales, one for all of ``axes``, that give ``values`` again."""
    largest = jnp.abs(values).max(axis=axes, keepdims=True)
    # A NaN stays in the scale, where integers have none.
    scales = jnp.where(largest == 0.0, 1.0, largest) / _LARGEST
    return jnp.round(values / scales).astype(jnp.int8), scales
