"""Products in the forms that XLA's CPU backend is fast at, with few copies."""

import math
from typing import NamedTuple, TypeAlias

import jax.numpy as jnp
from jax.experimental.layout import Layout, with_layout_constraint

from flax_transformer.array_types import Array, Float
from flax_transformer.parallel.activation_sharding import is_spread


class _Operand(NamedTuple):
    """An array and its axes, a letter each."""

    axes: str
    array: Float[Array, "..."]


_Pair: TypeAlias = tuple[_Operand, _Operand]


def multiply_on_cpu(
    equation: str,
    left: Float[Array, "..."],
    right: Float[Array, "..."],
    result_dtype: jnp.dtype,
) -> Float[Array, "..."]:
    """Return ``jnp.einsum(equation, left, right)`` with sums in ``result_dtype``.

    Args:
        equation: of two operands and a result, each index in at least two of the three.
        left: of the same dtype as ``right``.
        right: see ``left``.
        result_dtype: of the result.

    >>> multiply_on_cpu("td,dnh->tnh", jnp.ones((2, 3)), jnp.ones((3, 1, 2)), jnp.dtype("float32"))
    Array([[[3., 3.]],
    <BLANKLINE>
           [[3., 3.]]], dtype=float32)
    """
    inputs, result_axes = equation.split("->")
    left_axes, right_axes = inputs.split(",")
    pair = _Operand(left_axes, left), _Operand(right_axes, right)
    if is_spread():
        return _multiply_spread(pair, result_axes, result_dtype)
    sizes = _sizes(pair)
    pair, joined_axes = _join_axes(pair, result_axes)
    product = _multiply_with_few_copies(pair, joined_axes, result_dtype)
    return product.reshape([sizes[axis] for axis in result_axes])


def _multiply_spread(pair: _Pair, result_axes: str, result_dtype: jnp.dtype) -> Float[Array, "..."]:
    """Multiply so that the result begins with what the first operand alone has.

    XLA's CPU backend has no product of 16-bit numbers with a 32-bit result for the other order of
    the gradients of attention. A layout of its liking cannot be asked for where devices share the
    work: it would not be split over them.
    """
    left, right = pair
    own = next((axis for axis in result_axes if (axis in left.axes) != (axis in right.axes)), "")
    return _multiply(pair[::-1] if own in right.axes else pair, result_axes, result_dtype)


def _multiply_with_few_copies(
    pair: _Pair, result_axes: str, result_dtype: jnp.dtype
) -> Float[Array, "..."]:
    """Multiply in the one form that is fast, in the order of the operands that copies less.

    The form: the first operand is summed over its last axes, and the result has the axes of the
    first before those of the second. Of another form, 16-bit operands are widened to 32 bits, at
    less than half the speed, or not supported at all, and XLA copies an operand, however large.
    """
    pair = min(
        (pair, pair[::-1]), key=lambda pair: _count_copied_bytes(pair, result_axes, result_dtype)
    )
    made_axes = _made_axes(pair, result_axes)
    first, second = pair
    product = _multiply((_sum_over_last_axes(first, result_axes), second), made_axes, result_dtype)
    if made_axes == result_axes:
        return product
    return _transpose(_Operand(made_axes, _as_it_lies(product)), result_axes)


def _join_axes(pair: _Pair, result_axes: str) -> tuple[_Pair, str]:
    """Make one axis of those that lie side by side wherever they are.

    XLA would transpose weights ``[D, N, H]`` to sum over N and H; it sums ``[D, N H]`` as they lie.
    """
    left, right = pair
    terms = [left.axes, right.axes, result_axes]
    sizes = _sizes(pair)
    for operand in (0, 1):
        before = ""
        for axis in terms[operand]:
            both = before + axis
            if before and all(both in term or not set(both) & set(term) for term in terms):
                terms = [term.replace(both, before) for term in terms]
                sizes[before] *= sizes.pop(axis)
            else:
                before = axis
    left_axes, right_axes, result_axes = terms
    return (
        _Operand(left_axes, left.array.reshape([sizes[axis] for axis in left_axes])),
        _Operand(right_axes, right.array.reshape([sizes[axis] for axis in right_axes])),
    ), result_axes


def _count_copied_bytes(pair: _Pair, result_axes: str, result_dtype: jnp.dtype) -> int:
    """Return how much is copied to bring the first operand and the result into order."""
    first = pair[0]
    copied = 0
    if not first.axes.endswith(_summed_axes(first, result_axes)):
        copied += first.array.size * first.array.dtype.itemsize
    if _made_axes(pair, result_axes) != result_axes:
        sizes = _sizes(pair)
        copied += math.prod(sizes[axis] for axis in result_axes) * result_dtype.itemsize
    return copied


def _sizes(pair: _Pair) -> dict[str, int]:
    return {
        axis: size for axes, array in pair for axis, size in zip(axes, array.shape, strict=True)
    }


def _summed_axes(operand: _Operand, result_axes: str) -> str:
    return "".join(axis for axis in operand.axes if axis not in result_axes)


def _made_axes(pair: _Pair, result_axes: str) -> str:
    """Return the axes of the result in the order that they are made in."""
    first, second = pair[0].axes, pair[1].axes
    shared = "".join(axis for axis in first if axis in second and axis in result_axes)
    own = "".join(axis for axis in first if axis not in second)
    return shared + own + "".join(axis for axis in second if axis not in first)


def _sum_over_last_axes(operand: _Operand, result_axes: str) -> _Operand:
    """Copy an operand, if need be, so that the axes to sum over are its last."""
    summed = _summed_axes(operand, result_axes)
    if operand.axes.endswith(summed):
        return operand
    axes = "".join(axis for axis in operand.axes if axis in result_axes) + summed
    return _Operand(axes, _as_it_lies(_transpose(operand, axes)))


def _multiply(pair: _Pair, result_axes: str, result_dtype: jnp.dtype) -> Float[Array, "..."]:
    (first_axes, first), (second_axes, second) = pair
    return jnp.einsum(
        f"{first_axes},{second_axes}->{result_axes}",
        first,
        second,
        preferred_element_type=result_dtype,
    )


def _transpose(operand: _Operand, axes: str) -> Float[Array, "..."]:
    return operand.array.transpose([operand.axes.index(axis) for axis in axes])


def _as_it_lies(array: Float[Array, "..."]) -> Float[Array, "..."]:
    """Keep XLA from folding a transposition into the product before or after it."""
    return with_layout_constraint(array, Layout(tuple(range(array.ndim))))
