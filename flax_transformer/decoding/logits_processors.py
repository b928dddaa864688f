"""Functions of the logits of a step, applied before a search reads them."""

import jax
import jax.numpy as jnp

from flax_transformer.array_types import Array, Float, Int


def log_normalizer(logits: Float[Array, "*B V"]) -> Float[Array, "*B"]:
    """Return the logarithm of what divides ``exp(logits)``; 0 where no token is possible.

    Taken before any token is suppressed, so that scores stay the model's log-probabilities.

    >>> log_normalizer(jnp.array([[0.0, 0.0], [-jnp.inf, -jnp.inf]]))
    Array([0.6931472, 0.       ], dtype=float32)
    """
    normalizer = jax.nn.logsumexp(logits, axis=-1)
    # The difference of two infinities would be NaN and outrank every other hypothesis.
    return jnp.where(normalizer == -jnp.inf, 0.0, normalizer)


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
