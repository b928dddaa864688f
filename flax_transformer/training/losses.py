"""Cross-entropy with label smoothing."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from flax_transformer.array_types import Array, Float, Int


class TokenLosses(NamedTuple):
    """What each position of a batch costs, in nats.

    Attributes:
        smoothed: cross-entropy with the smoothed labels, what training minimises.
        nll: negative log-probability of the label itself.
    """

    smoothed: Float[Array, "B T"]
    nll: Float[Array, "B T"]


def cross_entropy(
    logits: Float[Array, "B T V"], labels: Int[Array, "B T"], *, label_smoothing: float = 0.0
) -> TokenLosses:
    """Compare logits with labels smoothed by ε (Szegedy et al., 2016, arXiv 1512.00567).

    The smoothed distribution is ``(1 - ε) one_hot(label) + ε / V``. Its cross-entropy has a closed
    form, ``logsumexp(z) - (1 - ε) z[label] - ε mean(z)``, which needs no array of labels over the
    vocabulary. Computed in float32.

    >>> cross_entropy(jnp.zeros((1, 1, 4)), jnp.array([[2]]), label_smoothing=0.1).smoothed
    Array([[1.3862944]], dtype=float32)
    """
    logits = logits.astype(jnp.float32)
    log_normalizer = jax.nn.logsumexp(logits, axis=-1)
    # A comparison, fused into one pass over the logits, instead of a gather: the gradient of a
    # gather is a scatter into zeros, [B, T, V], which nearly doubled the cost of the loss.
    is_label = jnp.arange(logits.shape[-1]) == labels[..., None]
    label_logits = jnp.where(is_label, logits, 0.0).sum(axis=-1)
    nll = log_normalizer - label_logits
    if label_smoothing == 0.0:
        return TokenLosses(nll, nll)
    smoothing = label_smoothing * (label_logits - logits.mean(axis=-1))
    return TokenLosses(nll + smoothing, nll)
