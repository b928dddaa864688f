"""Functions of the logits of a step, applied before a search reads them."""

from collections.abc import Callable
from typing import TypeAlias

import jax
import jax.numpy as jnp

from flax_transformer.array_types import Array, Float, Int
from flax_transformer.decoding.row_options import (
    RowOptions,
    force_prefixes,
    suppress_early_end,
)
from flax_transformer.errors import InputError

LogitsProcessor: TypeAlias = Callable[
    [Float[Array, "B W V"], Int[Array, "B W T"], Int[Array, ""]], Float[Array, "B W V"]
]
"""Change the log-probabilities of the next token.

Called with the log-probabilities of the model, as far as the processors before have not changed
them, with the tokens so far, of which only those before ``num_tokens`` mean anything, and with
``num_tokens``. What becomes -inf is not generated; nothing may become more than 0, and hypotheses
must not influence each other. Processors are hashable, so that a strategy with them finds the
program that was compiled for it.
"""


def log_normalizer(logits: Float[Array, "*B V"]) -> Float[Array, "*B"]:
    """Return the logarithm of what divides ``exp(logits)``; 0 where no token is possible.

    Taken before any token is suppressed, so that scores stay the model's log-probabilities.

    >>> log_normalizer(jnp.array([[0.0, 0.0], [-jnp.inf, -jnp.inf]]))
    Array([0.6931472, 0.       ], dtype=float32)
    """
    normalizer = jax.nn.logsumexp(logits, axis=-1)
    # The difference of two infinities would be NaN and outrank every other hypothesis.
    return jnp.where(normalizer == -jnp.inf, 0.0, normalizer)


def allow_tokens(
    logits: Float[Array, "B W V"],
    tokens: Int[Array, "B W T"],
    num_tokens: Int[Array, ""],
    rows: RowOptions,
    *,
    processors: tuple[LogitsProcessor, ...] = (),
    min_length: int = 0,
    eos_id: int,
) -> tuple[Float[Array, "B W V"], Float[Array, "B W"]]:
    """Apply all processors, then the limits and the prefixes of the rows.

    Returns:
        Logits, -inf for what must not be generated, and what to subtract from them for
        log-probabilities. Those are not normalised again: the tokens that are left keep the
        probabilities of the model.

    >>> def forbid_first(log_probs, tokens, num_tokens):
    ...     return log_probs.at[..., 0].set(-jnp.inf)
    >>> arguments = jnp.zeros((1, 1, 2)), jnp.zeros((1, 1, 3)), jnp.array(0), RowOptions()
    >>> allow_tokens(*arguments, processors=(forbid_first,), eos_id=1)
    (Array([[[      -inf, -0.6931472]]], dtype=float32), Array([[0.]], dtype=float32))
    """
    normalizer = log_normalizer(logits)
    if processors:
        logits, normalizer = logits - normalizer[..., None], jnp.zeros_like(normalizer)
    allowed = logits
    for processor in processors:
        allowed = processor(allowed, tokens, num_tokens)
    allowed = suppress_early_end(allowed, num_tokens, rows, min_length=min_length, eos_id=eos_id)
    if rows.prefixes is not None:
        allowed = force_prefixes(allowed, logits, num_tokens, rows.prefixes)
    return allowed, normalizer


def set_logits(
    logits: Float[Array, "B W V"], ids: Int[Array, "B W N"], values: Float[Array, "B W N"] | float
) -> Float[Array, "B W V"]:
    """Set the logits of the tokens ``ids`` of each hypothesis; ids of V or more are passed over.

    >>> set_logits(jnp.zeros((1, 1, 3)), jnp.array([[[1, 3]]]), -jnp.inf)
    Array([[[  0., -inf,   0.]]], dtype=float32)
    """
    batch = jnp.arange(logits.shape[0])[:, None, None]
    beam = jnp.arange(logits.shape[1])[:, None]
    return logits.at[batch, beam, ids].set(values, mode="drop")


def make_tuple(owner: object, name: str) -> None:
    """Make a tuple of an attribute of a frozen dataclass, which must be hashable, from a list."""
    object.__setattr__(owner, name, tuple(getattr(owner, name)))


def check_token_ids(name: str, token_ids: tuple[int, ...]) -> None:
    """Raise InputError unless there is a token, and none is negative."""
    if not token_ids:
        raise InputError(f"{name} must hold at least one token, got none.")
    if min(token_ids) < 0:
        raise InputError(f"{name} must hold tokens from 0, got {min(token_ids)}.")


def check_in_vocabulary(name: str, token_ids: tuple[int, ...], vocab_size: int) -> None:
    """Raise InputError if a token is outside a vocabulary of ``vocab_size``."""
    if max(token_ids) >= vocab_size:
        raise InputError(
            f"{name} must hold tokens from 0 to {vocab_size - 1}, got {max(token_ids)}."
        )
