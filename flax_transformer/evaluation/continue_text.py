"""Continuation of text by a language model: prompts in, what follows them out."""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

import jax
import numpy as np

from flax_transformer.array_types import Parameters
from flax_transformer.data.text_tokenizer import TextTokenizer
from flax_transformer.decoding.generate import generate
from flax_transformer.decoding.greedy import Greedy
from flax_transformer.decoding.prepare import Precision, PreparedParameters, prepare_to_decode
from flax_transformer.decoding.sampling import Sampling
from flax_transformer.decoding.strategies import Strategy
from flax_transformer.decoding.stream import stream
from flax_transformer.errors import InputError
from flax_transformer.evaluation.batching import (
    PlannedBatch,
    make_length_mask,
    pad_rows,
    plan_batches,
)
from flax_transformer.models.decoder_only import DecoderOnly

AnyStrategy = TypeVar("AnyStrategy", Greedy, Sampling, Greedy | Sampling, Strategy)

_INCOMPLETE = "\ufffd"
"""What the bytes of a character decode to as long as some of them are missing."""


class Continuation(NamedTuple):
    """One text that may follow a prompt.

    Attributes:
        text: what follows, as it would stand behind the prompt.
        score: its log-probability, natural, divided by the length penalty of the search.
        num_tokens: its length with the end token.
        truncated: whether it reached the length limit without the end token.
    """

    text: str
    score: float
    num_tokens: int
    truncated: bool


def continue_texts(
    model: DecoderOnly,
    params: Parameters,
    tokenizer: TextTokenizer,
    prompts: Sequence[str],
    *,
    strategy: Strategy,
    precision: Precision | None = None,
    batch_tokens: int = 4096,
) -> list[list[Continuation]]:
    """Return what may follow each prompt, best first, in the order of the prompts.

    A prompt is read behind the start token, as texts are in training. What follows it does not
    depend on the other prompts; with :class:`Sampling` it depends on its number.

    Args:
        model: a decoder without an encoder.
        params: its parameters.
        tokenizer: of its text.
        prompts: beginnings of texts, or nothing.
        strategy: how to search; of the tokens that the model has positions for, a prompt leaves
            fewer the longer it is.
        precision: of the weights; see :func:`.prepare_to_decode`.
        batch_tokens: positions of a batch's prompts at most, padding included.

    Raises:
        InputError: a prompt is too long.
    """
    rows = [
        encode_prompt(tokenizer, prompt, model, number) for number, prompt in enumerate(prompts)
    ]
    continuations: list[list[Continuation]] = [[] for _ in prompts]
    prepared_model, prepared = prepare_to_decode(model, params, precision=precision)
    for batch in plan_batches(
        [len(row) for row in rows],
        batch_tokens=batch_tokens,
        max_length=model.config.max_positions,
    ):
        found = _continue_batch(prepared_model, prepared, tokenizer, rows, batch, strategy)
        for index, of_prompt in zip(batch.indices, found, strict=False):
            continuations[index] = of_prompt
    return continuations


def stream_text(
    model: DecoderOnly,
    params: Parameters,
    tokenizer: TextTokenizer,
    prompt: str,
    *,
    strategy: Greedy | Sampling,
    precision: Precision | None = None,
) -> Iterator[str]:
    """Yield what follows ``prompt``, piece by piece as it is made; arguments as above.

    Together the pieces are the text of :func:`continue_texts`.
    """
    row = encode_prompt(tokenizer, prompt, model, 0)
    prepared_model, prepared = prepare_to_decode(model, params, precision=precision)
    tokens = stream(
        prepared_model,
        prepared,
        np.array([row], np.int32),
        strategy=_fit_strategy(strategy, len(row), model),
        eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id,
    )
    return _decode_stream(row, (int(token[0]) for token in tokens), tokenizer)


def encode_prompt(
    tokenizer: TextTokenizer, prompt: str, model: DecoderOnly, number: int
) -> list[int]:
    """Return the start token and the tokens of the prompt.

    Raises:
        InputError: the model cannot read so many.
    """
    row = [tokenizer.bos_id, *tokenizer.encode(prompt)]
    if len(row) > model.config.max_positions:
        raise InputError(
            f"a prompt must be at most max_positions = {model.config.max_positions} tokens long "
            f"with the start token, got {len(row)} in prompt {number + 1}."
        )
    return row


def _decode_stream(
    row: Sequence[int], tokens: Iterator[int], tokenizer: TextTokenizer
) -> Iterator[str]:
    start = len(tokenizer.decode(row))
    written, ids = "", list(row)
    for token in tokens:
        if token == tokenizer.eos_id:
            break
        ids.append(token)
        text = tokenizer.decode(ids)[start:].rstrip(_INCOMPLETE)
        if text.startswith(written) and text != written:
            yield text[len(written) :]
            written = text
    yield tokenizer.decode(ids)[start + len(written) :]


def _continue_batch(
    model: DecoderOnly,
    params: PreparedParameters,
    tokenizer: TextTokenizer,
    rows: Sequence[Sequence[int]],
    batch: PlannedBatch,
    strategy: Strategy,
) -> Iterator[list[Continuation]]:
    prompts = [rows[index] for index in batch.indices]
    row_numbers = np.zeros(batch.num_rows, np.int32)
    row_numbers[: len(prompts)] = batch.indices
    size = {"num_rows": batch.num_rows, "length": batch.length}
    hypotheses = jax.device_get(
        generate(
            model,
            params,
            pad_rows(prompts, **size, pad_id=tokenizer.pad_id),
            strategy=_fit_strategy(strategy, batch.length, model),
            mask=make_length_mask(prompts, **size),
            row_numbers=row_numbers,
            eos_id=tokenizer.eos_id,
            pad_id=tokenizer.pad_id,
        )
    )
    for row, tokens, scores, lengths in zip(
        prompts, hypotheses.tokens, hypotheses.scores, hypotheses.lengths, strict=False
    ):
        start = len(tokenizer.decode(row))
        yield [
            Continuation(
                text=tokenizer.decode([*row, *_without_end(ids[:length], tokenizer)])[start:],
                score=float(score),
                num_tokens=int(length),
                truncated=bool(ids[length - 1] != tokenizer.eos_id),
            )
            for ids, score, length in zip(tokens, scores, lengths, strict=True)
            if score != -np.inf
        ]


def _without_end(ids: np.ndarray, tokenizer: TextTokenizer) -> list[int]:
    tokens = ids.tolist()
    return tokens[:-1] if tokens[-1:] == [tokenizer.eos_id] else tokens


def _fit_strategy(strategy: AnyStrategy, prompt_length: int, model: DecoderOnly) -> AnyStrategy:
    """Shorten the outputs to what the model can read behind the prompt."""
    max_length = min(strategy.max_length, model.config.max_positions + 1 - prompt_length)
    return dataclasses.replace(
        strategy, max_length=max_length, min_length=min(strategy.min_length, max_length)
    )
