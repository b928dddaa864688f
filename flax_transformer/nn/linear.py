"""Linear maps of the last dimensions of an array."""

import math

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from flax_transformer.array_types import Array, Float, Key
from flax_transformer.nn.products import einsum


def _init_kernel(
    key: Key[Array, ""], shape: tuple[int, ...], num_in_axes: int
) -> Float[Array, "..."]:
    """Draw a kernel by Glorot and Bengio (2010), with all input axes as one and all others too."""
    num_inputs = math.prod(shape[:num_in_axes])
    matrix = nn.initializers.xavier_uniform()(key, (num_inputs, math.prod(shape[num_in_axes:])))
    return matrix.reshape(shape)


class Linear(nn.Module):
    """``x W + b``, where several dimensions may be summed over and several made.

    Attributes:
        features: dimensions of the result, in place of those that are summed over.
        num_in_axes: number of last dimensions that are summed over.
        use_bias: add a bias.
        dtype: of the result.
        product_dtype: of the operands of the product; see :mod:`flax_transformer.nn.products`.
    """

    features: tuple[int, ...]
    num_in_axes: int = 1
    use_bias: bool = False
    dtype: DTypeLike = jnp.float32
    product_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, inputs: Float[Array, "..."]) -> Float[Array, "..."]:
        """Transform the last dimensions of ``inputs``."""
        num_batch_axes = inputs.ndim - self.num_in_axes
        in_shape = inputs.shape[num_batch_axes:]
        kernel = self.param("kernel", _init_kernel, in_shape + self.features, self.num_in_axes)
        batch = "uvwxyz"[:num_batch_axes]
        summed = "abc"[: self.num_in_axes]
        made = "mno"[: len(self.features)]
        outputs = einsum(
            f"{batch}{summed},{summed}{made}->{batch}{made}",
            inputs,
            kernel,
            dtype=self.product_dtype,
            result_dtype=self.dtype,
        )
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, self.features)
            outputs = outputs + bias.astype(outputs.dtype)
        return outputs
