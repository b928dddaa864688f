"""Products of arrays whose operands have fewer bits than their results.

Units for matrix products multiply 16-bit numbers at two to sixteen times the rate of 32-bit ones
and add up in 32 bits. Automatic differentiation would not keep to that: the cotangent of a 32-bit
result has 32 bits, and so the two products of the backward pass would leave those units. Here the
operands of all three products have the dtype asked for.
"""

import contextlib
import contextvars
import functools
from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from flax_transformer.array_types import Array, Float
from flax_transformer.nn.cpu_products import multiply_on_cpu
from flax_transformer.nn.quantization import Int8Weights, quantized_einsum
from flax_transformer.parallel.activation_sharding import is_spread

_WRITES_GRADIENTS: contextvars.ContextVar[bool] = contextvars.ContextVar(
    "writes_gradients", default=False
)


@contextlib.contextmanager
def written_gradients() -> Iterator[None]:
    """Let 32-bit products, too, have gradients that are written out, in what is traced within.

    For a weight's gradient, automatic differentiation leaves XLA's CPU backend to copy one operand,
    and it is the cotangent, which for an output's table is the largest array of a training step.
    Written out, the gradient is made in the order that copies less. Such products have no
    forward-mode derivatives, which a training step does not need, and others may.
    """
    token = _WRITES_GRADIENTS.set(True)
    try:
        yield
    finally:
        _WRITES_GRADIENTS.reset(token)


def einsum(
    equation: str,
    left: Float[Array, "..."],
    right: Float[Array, "..."] | Int8Weights,
    *,
    dtype: DTypeLike,
    result_dtype: DTypeLike,
) -> Float[Array, "..."]:
    """Return ``jnp.einsum(equation, left, right)``, computed on operands of ``dtype``.

    Cotangents are rounded to ``dtype``, too, before they are multiplied; the gradients have the
    dtypes of ``left`` and ``right``.

    Args:
        equation: of two operands and a result, each index in at least two of the three.
        left: of any dtype.
        right: of any dtype; quantized weights, of which there are no gradients, multiply integers.
        dtype: of the operands.
        result_dtype: of the result.

    >>> einsum("ab,bc->ac", jnp.ones((2, 3)), jnp.ones((3, 1)), dtype="bfloat16",
    ...        result_dtype="float32")
    Array([[3.],
           [3.]], dtype=float32)
    """
    if isinstance(right, Int8Weights):
        return quantized_einsum(equation, left, right).astype(result_dtype)
    if jnp.dtype(dtype).itemsize == 4 and not _copies_large_operands():
        return jnp.einsum(
            equation,
            left.astype(dtype),
            right.astype(dtype),
            preferred_element_type=jnp.dtype(result_dtype),
        )
    dtypes = _Dtypes(
        operands=jnp.dtype(dtype),
        result=jnp.dtype(result_dtype),
        left=left.dtype,
        right=right.dtype,
    )
    return _written_einsum(equation, dtypes, left, right)


def _copies_large_operands() -> bool:
    """Tell whether automatic differentiation is to be kept from 32-bit products."""
    return _WRITES_GRADIENTS.get() and jax.default_backend() == "cpu" and not is_spread()


class _Dtypes(NamedTuple):
    """Of what is multiplied, of the result, and of the two arrays given."""

    operands: jnp.dtype
    result: jnp.dtype
    left: jnp.dtype
    right: jnp.dtype


_Operands: TypeAlias = tuple[Float[Array, "..."], Float[Array, "..."]]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _written_einsum(
    equation: str, dtypes: _Dtypes, left: Float[Array, "..."], right: Float[Array, "..."]
) -> Float[Array, "..."]:
    return _written_einsum_forward(equation, dtypes, left, right)[0]


def _written_einsum_forward(
    equation: str, dtypes: _Dtypes, left: Float[Array, "..."], right: Float[Array, "..."]
) -> tuple[Float[Array, "..."], _Operands]:
    operands = left.astype(dtypes.operands), right.astype(dtypes.operands)
    return _multiply(equation, *operands, dtypes.result), operands


def _written_einsum_backward(
    equation: str, dtypes: _Dtypes, operands: _Operands, cotangent: Float[Array, "..."]
) -> _Operands:
    left, right = operands
    inputs, result = equation.split("->")
    left_axes, right_axes = inputs.split(",")
    cotangent = cotangent.astype(dtypes.operands)
    # Each gradient is the product of the other operand with the cotangent, over the axes of both
    # that it lacks.
    left_gradient = _multiply(f"{result},{right_axes}->{left_axes}", cotangent, right, dtypes.left)
    right_gradient = _multiply(f"{result},{left_axes}->{right_axes}", cotangent, left, dtypes.right)
    return left_gradient, right_gradient


_written_einsum.defvjp(_written_einsum_forward, _written_einsum_backward)


def _multiply(
    equation: str,
    left: Float[Array, "..."],
    right: Float[Array, "..."],
    result_dtype: jnp.dtype,
) -> Float[Array, "..."]:
    """Return the product, in the dtype that devices shall add up their parts of it in."""
    if jax.default_backend() == "cpu":
        return multiply_on_cpu(equation, left, right, result_dtype)
    return jnp.einsum(equation, left, right, preferred_element_type=result_dtype)
