"""Log-probabilities that a model gives to outputs that are already there."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from flax_transformer.array_types import Array, Bool, Float, Int, Parameters
from flax_transformer.decoding.input_checks import check_tokens
from flax_transformer.decoding.prepare import PreparedParameters
from flax_transformer.errors import InputError
from flax_transformer.models.encoder_decoder import EncoderDecoder


def score(
    model: EncoderDecoder,
    params: Parameters,
    source: Int[Array | np.ndarray, "B S"],
    target: Int[Array | np.ndarray, "B T"],
    labels: Int[Array | np.ndarray, "B T"],
    *,
    source_mask: Bool[Array | np.ndarray, "B S"] | None = None,
    label_mask: Bool[Array | np.ndarray, "B T"] | None = None,
) -> Float[Array, "B T"]:
    """Return the log-probability of each label, in one pass over all positions.

    Args:
        model: the model.
        params: its parameters.
        source: source tokens, padded.
        target: what the decoder reads: the labels shifted right, behind the start token.
        labels: tokens to score, with the end token, padded on the right.
        source_mask: True on the source's tokens; None where there is no padding.
        label_mask: True on the labels that count; the others score 0.

    Raises:
        InputError: a token is outside the vocabulary, a row is over ``max_positions``, or the
            parameters are prepared to decode.
    """
    if isinstance(params, PreparedParameters):
        raise InputError(
            "params must be those that the model was made with to score, got prepared parameters."
        )
    check_tokens("source", source, model.config.source_vocab_size)
    check_tokens("target", target, model.config.target_vocab_size)
    check_tokens("labels", labels, model.config.target_vocab_size)
    return _score(model, params, source, target, labels, source_mask, label_mask)


@functools.partial(jax.jit, static_argnames=("model",))
def _score(
    model: EncoderDecoder,
    params: Parameters,
    source: Int[Array, "B S"],
    target: Int[Array, "B T"],
    labels: Int[Array, "B T"],
    source_mask: Bool[Array, "B S"] | None,
    label_mask: Bool[Array, "B T"] | None,
) -> Float[Array, "B T"]:
    logits = model.apply({"params": params}, source, target, source_mask, deterministic=True)
    label_logits = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    log_probs = label_logits - jax.nn.logsumexp(logits, axis=-1)
    return log_probs if label_mask is None else jnp.where(label_mask, log_probs, 0.0)
