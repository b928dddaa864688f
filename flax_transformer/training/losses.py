"""Cross-entropy with label smoothing, of logits or of the states that they are made of."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from flax_transformer.array_types import Array, Float, Int
from flax_transformer.errors import InputError
from flax_transformer.nn.embedding import score_tokens
from flax_transformer.parallel.activation_sharding import constrain


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
    table: Float[Array, "V D"],
    labels: Int[Array, "B T"],
    *,
    label_smoothing: float = 0.0,
    vocab_chunks: int = 1,
    product_dtype: DTypeLike = jnp.float32,
    logits_dtype: DTypeLike = jnp.float32,
) -> TokenLosses:
    """Return the :func:`cross_entropy` of the logits ``states @ tableᵀ``.

    The logits are by far the largest array of a step. With ``vocab_chunks`` the vocabulary is gone
    through in so many parts, and a part's logits are made again in the backward pass: ``B T V /
    chunks`` numbers stand at a time, at the price of a second product. On a mesh, positions are
    split over the devices that split heads, see
    :class:`~flax_transformer.parallel.sharding_rules.ShardingRules`.

    Args:
        states: final states of a decoder.
        table: a vector for each token.
        labels: tokens to predict.
        label_smoothing: ε.
        vocab_chunks: parts of the vocabulary, at least 1.
        product_dtype: of the product's operands.
        logits_dtype: of the logits; the sums over them are float32.

    Raises:
        InputError: there are more parts than tokens.
    """
    vocab_size = table.shape[0]
    if vocab_chunks > vocab_size:
        raise InputError(
            f"vocab_chunks must be at most the vocabulary's size, {vocab_size}, got {vocab_chunks}."
        )
    states = constrain(states, "batch", "logits_length", "_")

    def sum_part(table: Float[Array, "V D"], labels: Int[Array, "B T"]) -> LogitSums:
        logits = score_tokens(states, table, product_dtype=product_dtype, logits_dtype=logits_dtype)
        logits = constrain(logits, "batch", "logits_length", "logits_vocab")
        return _sum_logits(logits, labels)

    if vocab_chunks == 1:
        return _losses(sum_part(table, labels), vocab_size, label_smoothing)
    # Of the first chunks all have one size, for a scan; what is left over is one more part.
    size = -(-vocab_size // vocab_chunks)
    num_whole = vocab_size // size
    whole, rest = jnp.split(table, [num_whole * size])
    sum_part = jax.checkpoint(sum_part)

    def add_part(
        sums: LogitSums, part: tuple[Float[Array, "V D"], Int[Array, ""]]
    ) -> tuple[LogitSums, None]:
        chunk, start = part
        return _add(sums, sum_part(chunk, labels - start)), None

    chunks = whole.reshape(num_whole, size, -1)
    first = LogitSums(
        jnp.full(labels.shape, -jnp.inf), jnp.zeros(labels.shape), jnp.zeros(labels.shape)
    )
    sums, _ = jax.lax.scan(add_part, first, (chunks, jnp.arange(num_whole) * size))
    if rest.size:
        sums = _add(sums, sum_part(rest, labels - num_whole * size))
    return _losses(sums, vocab_size, label_smoothing)


def _sum_logits(logits: Float[Array, "B T V"], labels: Int[Array, "B T"]) -> LogitSums:
    logits = logits.astype(jnp.float32)
    # A comparison, fused into one pass over the logits, instead of a gather: the gradient of a
    # gather is a scatter into zeros, [B, T, V], which nearly doubled the cost of the loss.
    is_label = jnp.arange(logits.shape[-1]) == labels[..., None]
    return LogitSums(
        log_normalizer=jax.nn.logsumexp(logits, axis=-1),
        label=jnp.where(is_label, logits, 0.0).sum(axis=-1),
        total=logits.sum(axis=-1),
    )


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
