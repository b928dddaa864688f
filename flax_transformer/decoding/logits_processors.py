"""Functions that change the logits of a step before the search reads them."""

import jax.numpy as jnp

from flax_transformer.array_types import Array, Float, Int


def suppress_early_end(
    logits: Float[Array, "B W V"], index: Int[Array, ""], *, eos_id: int, min_length: int
) -> Float[Array, "B W V"]:
    """Forbid the end token at step ``index`` (from 0) if the output would be under ``min_length``.

    >>> suppress_early_end(jnp.zeros((1, 1, 2)), jnp.array(0), eos_id=1, min_length=2)
    Array([[[  0., -inf]]], dtype=float32)
    """
    if min_length <= 1:
        return logits
    is_end = jnp.arange(logits.shape[-1]) == eos_id
    return jnp.where(is_end & (index + 1 < min_length), -jnp.inf, logits)
