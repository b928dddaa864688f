"""Cross-entropy with label smoothing, of logits or of the states that they are made of."""

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from flax_transformer.array_types import Array, Bool, Float, Int
from flax_transformer.errors import InputError
from flax_transformer.nn.embedding import OutputProjection, score_tokens
from flax_transformer.parallel.activation_sharding import constrain, is_spread


class TokenLosses(NamedTuple):
    """What each position of a batch costs, in nats.

    Attributes:
        smoothed: cross-entropy with the smoothed labels, what training minimises.
        nll: negative log-probability of the label itself.
    """

    smoothed: Float[Array, "B T"]
    nll: Float[Array, "B T"]


class LogitSums(NamedTuple):
    """What the loss needs of the logits of each position; adds up over parts of a vocabulary.

    Attributes:
        log_normalizer: logarithm of the sum of exponentials.
        label: the label's logit; 0 in the parts that do not hold the label.
        total: the sum.
    """

    log_normalizer: Float[Array, "B T"]
    label: Float[Array, "B T"]
    total: Float[Array, "B T"]


_Residuals: TypeAlias = tuple[Float[Array, "B T V"], Float[Array, "B T"], Int[Array, "B T"]]
"""Exponentials and their sum, or logits and their normalizer; see _sum_logits_forward."""


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
    return _losses(_sum_logits(logits, labels), logits.shape[-1], label_smoothing)


def linear_cross_entropy(
    states: Float[Array, "B T D"],
    projection: OutputProjection,
    labels: Int[Array, "B T"],
    *,
    label_smoothing: float = 0.0,
    vocab_chunks: int = 1,
    product_dtype: DTypeLike = jnp.float32,
    logits_dtype: DTypeLike = jnp.float32,
) -> TokenLosses:
    """Return the :func:`cross_entropy` of the logits ``states @ tableᵀ + bias``.

    The logits are by far the largest array of a step. With ``vocab_chunks`` the vocabulary is gone
    through in so many parts, and a part's logits are made again in the backward pass: ``B T V /
    chunks`` numbers stand at a time, at the price of a second product. On a mesh, positions are
    split over the devices that split heads, see
    :class:`~flax_transformer.parallel.sharding_rules.ShardingRules`.

    Args:
        states: final states of a decoder.
        projection: vectors and biases of the tokens.
        labels: tokens to predict.
        label_smoothing: ε.
        vocab_chunks: parts of the vocabulary, at least 1.
        product_dtype: of the product's operands.
        logits_dtype: of the logits; the sums over them are float32.

    Raises:
        InputError: there are more parts than tokens.
    """
    vocab_size = projection.table.shape[0]
    if vocab_chunks > vocab_size:
        raise InputError(
            f"vocab_chunks must be at most the vocabulary's size, {vocab_size}, got {vocab_chunks}."
        )
    states = constrain(states, "batch", "logits_length", "_")

    def sum_part(part: OutputProjection, labels: Int[Array, "B T"]) -> LogitSums:
        logits = score_tokens(states, part, product_dtype=product_dtype, logits_dtype=logits_dtype)
        logits = constrain(logits, "batch", "logits_length", "logits_vocab")
        return _sum_logits(logits, labels)

    if vocab_chunks == 1:
        return _losses(sum_part(projection, labels), vocab_size, label_smoothing)
    # Of the first chunks all have one size, for a scan; what is left over is one more part.
    size = -(-vocab_size // vocab_chunks)
    num_whole = vocab_size // size
    whole = jax.tree.map(
        lambda leaf: leaf[: num_whole * size].reshape(num_whole, size, *leaf.shape[1:]), projection
    )
    rest = jax.tree.map(lambda leaf: leaf[num_whole * size :], projection)
    sum_part = jax.checkpoint(sum_part)

    def add_part(
        sums: LogitSums, part: tuple[OutputProjection, Int[Array, ""]]
    ) -> tuple[LogitSums, None]:
        chunk, start = part
        return _add(sums, sum_part(chunk, labels - start)), None

    first = LogitSums(
        jnp.full(labels.shape, -jnp.inf), jnp.zeros(labels.shape), jnp.zeros(labels.shape)
    )
    sums, _ = jax.lax.scan(add_part, first, (whole, jnp.arange(num_whole) * size))
    if rest.table.size:
        sums = _add(sums, sum_part(rest, labels - num_whole * size))
    return _losses(sums, vocab_size, label_smoothing)


@jax.custom_vjp
def _sum_logits(logits: Float[Array, "B T V"], labels: Int[Array, "B T"]) -> LogitSums:
    return _sum_logits_forward(logits, labels)[0]


def _sum_logits_forward(
    logits: Float[Array, "B T V"], labels: Int[Array, "B T"]
) -> tuple[LogitSums, _Residuals]:
    """Return the sums, and what the backward pass needs.

    Of float32 logits these are the exponentials, which take the room of the logits and are there
    already. Of narrower ones it is the logits, lest a float32 array of their shape be kept.
    """
    given, logits = logits, logits.astype(jnp.float32)
    largest = logits.max(axis=-1)
    exponentials = jnp.exp(logits - largest[..., None])
    sum_of_exponentials = exponentials.sum(axis=-1)
    sums = LogitSums(
        log_normalizer=largest + jnp.log(sum_of_exponentials),
        label=_label_logits(logits, labels),
        total=logits.sum(axis=-1),
    )
    if given.dtype == jnp.float32:
        return sums, (exponentials, sum_of_exponentials, labels)
    return sums, (given, sums.log_normalizer, labels)


def _sum_logits_backward(
    residuals: _Residuals, cotangents: LogitSums
) -> tuple[Float[Array, "B T V"], None]:
    """Return the gradient by the logits, written out so that it is made in one pass.

    Differentiation would scatter the label's part into a table of zeros.
    """
    kept, normalizer, labels = residuals
    if kept.dtype == jnp.float32:
        softmax = (cotangents.log_normalizer / normalizer)[..., None] * kept
    else:
        probabilities = jnp.exp(kept.astype(jnp.float32) - normalizer[..., None])
        softmax = cotangents.log_normalizer[..., None] * probabilities
    gradient = (
        softmax
        + jnp.where(_is_label(kept, labels), cotangents.label[..., None], 0.0)
        + cotangents.total[..., None]
    )
    return gradient.astype(kept.dtype), None


_sum_logits.defvjp(_sum_logits_forward, _sum_logits_backward)


def _is_label(logits: Float[Array, "B T V"], labels: Int[Array, "B T"]) -> Bool[Array, "B T V"]:
    return jnp.arange(logits.shape[-1]) == labels[..., None]


def _label_logits(logits: Float[Array, "B T V"], labels: Int[Array, "B T"]) -> Float[Array, "B T"]:
    """Return the label's logit; 0 for a label that is not among the logits."""
    if is_spread():
        # A look-up would gather the logits of all devices that share the vocabulary.
        return jnp.where(_is_label(logits, labels), logits, 0.0).sum(axis=-1)
    is_here = (labels >= 0) & (labels < logits.shape[-1])
    places = jnp.where(is_here, labels, 0)[..., None]
    return jnp.where(is_here, jnp.take_along_axis(logits, places, axis=-1)[..., 0], 0.0)


def _add(sums: LogitSums, others: LogitSums) -> LogitSums:
    return LogitSums(
        jnp.logaddexp(sums.log_normalizer, others.log_normalizer),
        sums.label + others.label,
        sums.total + others.total,
    )


def _losses(sums: LogitSums, vocab_size: int, label_smoothing: float) -> TokenLosses:
    nll = sums.log_normalizer - sums.label
    if label_smoothing == 0.0:
        return TokenLosses(nll, nll)
    return TokenLosses(nll + label_smoothing * (sums.label - sums.total / vocab_size), nll)
