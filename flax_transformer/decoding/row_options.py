"""What each row of a batch asks of a search, besides the strategy that all rows share."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from flax_transformer.array_types import Array, Bool, Float, Int
from flax_transformer.errors import InputError

NO_TOKEN = -1
"""Pads rows of token ids that no vocabulary has a token for."""


class RowOptions(NamedTuple):
    """Limits and beginnings of outputs, row by row; None for what no row asks for.

    Attributes:
        min_lengths: tokens at least, in addition to the ``min_length`` of the strategy; where it is
            over ``max_lengths``, that one holds.
        max_lengths: tokens at most, at least 1 and not over the ``max_length`` of the strategy.
        prefixes: the first tokens of the output, padded with -1 on the right; -1 in the first place
            leaves that token to the search. Processors do not change them, their log-probabilities
            stay the model's, and they count in the score.
    """

    min_lengths: Int[Array | np.ndarray, " B"] | None = None
    max_lengths: Int[Array | np.ndarray, " B"] | None = None
    prefixes: Int[Array | np.ndarray, "B P"] | None = None


NO_OPTIONS = RowOptions()


def suppress_early_end(
    logits: Float[Array, "B W V"],
    num_tokens: Int[Array, ""],
    rows: RowOptions,
    *,
    min_length: int,
    eos_id: int,
) -> Float[Array, "B W V"]:
    """Forbid the end token after ``num_tokens`` if the output would be too short.

    >>> suppress_early_end(jnp.zeros((1, 1, 2)), jnp.array(0), RowOptions(), min_length=2, eos_id=1)
    Array([[[  0., -inf]]], dtype=float32)
    """
    if rows.min_lengths is None and min_length <= 1:
        return logits
    shortest = jnp.asarray(min_length)
    if rows.min_lengths is not None:
        shortest = jnp.maximum(shortest, rows.min_lengths)
    if rows.max_lengths is not None:
        shortest = jnp.minimum(shortest, rows.max_lengths)
    is_early: Bool[Array, "*#B"] = num_tokens + 1 < shortest
    is_end = jnp.arange(logits.shape[-1]) == eos_id
    return jnp.where(is_end & is_early[..., None, None], -jnp.inf, logits)


def force_prefixes(
    allowed: Float[Array, "B W V"],
    unprocessed: Float[Array, "B W V"],
    num_tokens: Int[Array, ""],
    prefixes: Int[Array | np.ndarray, "B P"],
) -> Float[Array, "B W V"]:
    """Forbid every token but that of the prefix, which keeps what it is in ``unprocessed``.

    >>> logits = jnp.zeros((2, 1, 3))
    >>> force_prefixes(logits, logits, jnp.array(0), jnp.array([[2], [NO_TOKEN]]))[:, 0]
    Array([[-inf, -inf,   0.],
           [  0.,   0.,   0.]], dtype=float32)
    """
    length = prefixes.shape[1]
    forced = jnp.asarray(prefixes)[:, jnp.minimum(num_tokens, length - 1), None, None]
    lasts = (num_tokens < length) & (forced != NO_TOKEN)
    is_forced = jnp.arange(allowed.shape[-1]) == forced
    return jnp.where(lasts, jnp.where(is_forced, unprocessed, -jnp.inf), allowed)


def check_padded_tokens(
    name: str,
    tokens: Int[Array | np.ndarray, "B *N P"],
    *,
    num_rows: int,
    vocab_size: int,
    eos_id: int,
) -> None:
    """Raise InputError unless these can be prefixes or constraints of ``num_rows`` rows.

    On the host, before any tracing: tokens of the vocabulary, without the end token, and -1 behind;
    of prefixes the first may be -1, too.
    """
    tokens = np.asarray(tokens)
    if tokens.shape[0] != num_rows or not tokens.size:
        raise InputError(
            f"{name} must have {num_rows} rows of tokens or padding, got the shape {tokens.shape}. "
            "Give None where no row has any."
        )
    is_token = tokens != NO_TOKEN
    dense = is_token[..., 1:] if name == "prefixes" else is_token
    if (dense[..., 1:] & ~dense[..., :-1]).any():
        raise InputError(f"{name} must be padded with -1 on the right, got a token after padding.")
    given = tokens[is_token]
    if given.size and not 0 <= given.min() <= given.max() < vocab_size:
        raise InputError(
            f"{name} must hold tokens from 0 to {vocab_size - 1}, "
            f"got {given.min()} to {given.max()}."
        )
    if (given == eos_id).any():
        raise InputError(f"{name} must not hold the end token, got {eos_id}.")
