"""What can be wrong with the arguments of decoding, found on the host before any tracing."""

import numpy as np

from flax_transformer.array_types import Array, Bool, Int
from flax_transformer.decoding.prepare import DecodingModel
from flax_transformer.errors import InputError
from flax_transformer.models.decoder_only import DecoderOnly


def check_tokens(name: str, tokens: Int[Array | np.ndarray, "*B"], vocab_size: int) -> None:
    """Raise InputError if a token is outside the vocabulary."""
    tokens = np.asarray(tokens)
    if tokens.size and (tokens.min() < 0 or tokens.max() >= vocab_size):
        raise InputError(
            f"{name} must hold tokens from 0 to {vocab_size - 1}, "
            f"got {tokens.min()} to {tokens.max()}."
        )


def check_token(name: str, token: int, vocab_size: int) -> None:
    """Raise InputError if there is no such token."""
    if not 0 <= token < vocab_size:
        raise InputError(f"{name} must lie between 0 and {vocab_size - 1}, got {token}.")


def check_shapes(
    inputs: Int[Array | np.ndarray, "B S"],
    mask: Bool[Array | np.ndarray, "B S"] | None,
    *,
    prefixes: Int[Array | np.ndarray, "B P"] | None,
    constraints: Int[Array | np.ndarray, "B C L"] | None,
    max_lengths: Int[Array | np.ndarray, " B"] | None,
    row_numbers: Int[Array | np.ndarray, " B"] | None,
) -> None:
    """Raise InputError unless there are rows, and everything that is given has as many."""
    shape = np.shape(inputs)
    if len(shape) != 2 or not all(shape):
        raise InputError(
            f"inputs must be an array of rows of tokens, at least one of one, got the shape {shape}"
            "."
        )
    if mask is not None and np.shape(mask) != shape:
        raise InputError(f"mask must have the shape {shape} of inputs, got {np.shape(mask)}.")
    for name, array, rank in (
        ("prefixes", prefixes, 2),
        ("constraints", constraints, 3),
        ("max_lengths", max_lengths, 1),
        ("row_numbers", row_numbers, 1),
    ):
        if array is not None and (np.ndim(array) != rank or len(array) != shape[0]):
            raise InputError(
                f"{name} must be an array of {rank} axes and {shape[0]} rows, got the shape "
                f"{np.shape(array)}."
            )


def check_inputs(
    model: DecodingModel,
    inputs: Int[Array | np.ndarray, "B S"],
    mask: Bool[Array | np.ndarray, "B S"] | None,
    bos_id: int | None,
) -> int:
    """Return the token that the decoder of an encoder–decoder reads first, and 0 without one.

    Raises:
        InputError: there is no such token, one is outside the vocabulary, or a prompt is empty.
    """
    if isinstance(model, DecoderOnly):
        check_tokens("inputs", inputs, model.config.target_vocab_size)
        if mask is not None and not np.asarray(mask).any(axis=1).all():
            raise InputError("each prompt must hold at least one token, got an empty one.")
        return 0
    check_tokens("inputs", inputs, model.config.source_vocab_size)
    if bos_id is None:
        raise InputError("bos_id must be given for a model with an encoder.")
    check_token("bos_id", bos_id, model.config.target_vocab_size)
    return bos_id


def check_length(
    model: DecodingModel,
    inputs: Int[Array | np.ndarray, "B S"],
    mask: Bool[Array | np.ndarray, "B S"] | None,
    max_lengths: int | Int[Array | np.ndarray, " B"],
) -> None:
    """Raise InputError if an output could be longer than the model can read.

    Of a prompt, the tokens alone count: padding has no position.
    """
    max_positions = model.config.position_limit
    longest = np.asarray(max_lengths)
    if longest.min() < 1:
        raise InputError(f"max_lengths must be at least 1, got {longest.min()}.")
    if max_positions is None:
        return
    if isinstance(model, DecoderOnly):
        counts = np.full(len(inputs), inputs.shape[1])
        if mask is not None:
            counts = np.asarray(mask).sum(axis=1)
        row = int(np.argmax(counts + longest))
        longest = np.broadcast_to(longest, counts.shape)
        if counts[row] + longest[row] - 1 > max_positions:
            raise InputError(
                f"prompt and max_length must be at most {max_positions + 1} tokens together for "
                f"max_positions = {max_positions}, got {counts[row]} + {longest[row]}."
            )
    elif longest.max() > max_positions:
        raise InputError(
            f"max_length must be at most max_positions = {max_positions}, got {longest.max()}."
        )
