"""Continuation of text by a language model: prompts in, what follows them out."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from flax_transformer.array_types import Parameters
from flax_transformer.data.text_tokenizer import TextTokenizer
from flax_transformer.decoding.greedy import Greedy
from flax_transformer.decoding.model_combinations import AVERAGE, Combination
from flax_transformer.decoding.prepare import Precision, prepare_to_decode
from flax_transformer.decoding.sampling import Sampling
from flax_transformer.decoding.strategies import Strategy, limit_length
from flax_transformer.decoding.stream import stream
from flax_transformer.errors import InputError
from flax_transformer.evaluation.batch_continuer import (
    BatchContinuer,
    Continuation,
    rest_of_positions,
)
from flax_transformer.evaluation.batching import plan_batches
from flax_transformer.evaluation.sources import check_texts
from flax_transformer.evaluation.translation import Request
from flax_transformer.models.decoder_only import DecoderOnly

_INCOMPLETE = "\ufffd"
"""What the bytes of a character decode to as long as some of them are missing."""


def continue_texts(
    model: DecoderOnly | tuple[DecoderOnly, ...],
    params: Parameters | tuple[Parameters, ...],
    tokenizer: TextTokenizer,
    prompts: Sequence[str | Request],
    *,
    strategy: Strategy,
    combine: Combination = AVERAGE,
    precision: Precision | None = None,
    batch_tokens: int = 4096,
) -> list[list[Continuation]]:
    """Return what may follow each prompt, best first, in the order of the prompts.

    A prompt is read behind what the tokenizer puts there: the start token, or, of a public one,
    what its texts begin with, which may be nothing. What follows it does not depend on the other
    prompts; with :class:`Sampling` it depends on its number.

    Args:
        model: a decoder without an encoder, or several with one tokenizer.
        params: its parameters, or those of each.
        tokenizer: of its text.
        prompts: beginnings of texts, or nothing; or requests.
        strategy: how to search; of the tokens that the model has positions for, a prompt leaves
            fewer the longer it is.
        combine: how several models decode together.
        precision: of the weights; see :func:`.prepare_to_decode`.
        batch_tokens: positions of a batch's prompts at most, padding included.

    Raises:
        InputError: a prompt is too long, or one text is given in place of several.
    """
    check_texts(prompts, "prompts")
    models = model if isinstance(model, tuple) else (model,)
    all_params: Any = params if isinstance(model, tuple) else (params,)
    smallest = min(models, key=lambda each: each.config.max_positions)
    requests = [Request(each) if isinstance(each, str) else each for each in prompts]
    rows = [
        encode_prompt(tokenizer, request.text, smallest, number)
        for number, request in enumerate(requests)
    ]
    prepared = [
        prepare_to_decode(each, of_model, precision=precision)
        for each, of_model in zip(models, all_params, strict=True)
    ]
    continuer = BatchContinuer(
        tuple(each for each, _ in prepared),
        tuple(of_model for _, of_model in prepared),
        tokenizer,
        limit_length(strategy, min(strategy.max_length, smallest.config.max_positions)),
        combine,
        smallest.config.max_positions,
    )
    continuations: list[list[Continuation]] = [[] for _ in prompts]
    for batch in plan_batches(
        [len(row) for row in rows],
        batch_tokens=batch_tokens,
        max_length=smallest.config.max_positions,
    ):
        of_batch = [requests[index] for index in batch.indices]
        found = continuer.continue_batch(batch, [rows[index] for index in batch.indices], of_batch)
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
    max_positions = model.config.max_positions
    row = encode_prompt(tokenizer, prompt, model, 0)
    prepared_model, prepared = prepare_to_decode(model, params, precision=precision)
    strategy = limit_length(strategy, min(strategy.max_length, max_positions))
    tokens = stream(
        prepared_model,
        prepared,
        np.array([row], np.int32),
        strategy=strategy,
        max_lengths=rest_of_positions([row], strategy, max_positions, num_rows=1),
        eos_id=tokenizer.eos_id,
        pad_id=tokenizer.pad_id,
    )
    return _decode_stream(row, (int(token[0]) for token in tokens), tokenizer)


def encode_prompt(
    tokenizer: TextTokenizer, prompt: str, model: DecoderOnly, number: int
) -> list[int]:
    """Return the tokens of the prompt behind what the tokenizer begins it with.

    Where both are nothing, it is the start token, since a model must read something.

    Raises:
        InputError: the model cannot read so many.
    """
    row = [*tokenizer.prompt_ids, *tokenizer.encode(prompt)] or [tokenizer.bos_id]
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
