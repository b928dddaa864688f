"""Continuation of the prompts of one batch."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import numpy as np

from flax_transformer.array_types import Int
from flax_transformer.data.text_tokenizer import TextTokenizer
from flax_transformer.decoding.generate import generate
from flax_transformer.decoding.model_combinations import Combination
from flax_transformer.decoding.prepare import DecodingModel, PreparedParameters
from flax_transformer.decoding.row_options import NO_TOKEN
from flax_transformer.decoding.strategies import Strategy, forced_first_id
from flax_transformer.evaluation.batching import PlannedBatch, make_length_mask, pad_rows
from flax_transformer.evaluation.request_tokens import (
    check_known,
    encode_constraints,
    pad_prefixes,
)
from flax_transformer.evaluation.translation import Request


class Continuation(NamedTuple):
    """One text that may follow a prompt.

    Attributes:
        text: what follows, as it would stand behind the prompt.
        score: its log-probability, natural; that of a beam search is divided by its length penalty.
        num_tokens: its length with the end token.
        truncated: whether it reached the length limit without the end token.
    """

    text: str
    score: float
    num_tokens: int
    truncated: bool


class BatchContinuer(NamedTuple):
    """What all batches of prompts have in common."""

    models: tuple[DecodingModel, ...]
    params: tuple[PreparedParameters, ...]
    tokenizer: TextTokenizer
    strategy: Strategy
    combine: Combination
    max_positions: int

    def continue_batch(
        self, batch: PlannedBatch, rows: Sequence[Sequence[int]], requests: Sequence[Request]
    ) -> Iterator[list[Continuation]]:
        """Yield what follows each of ``rows``, the prompts of ``requests``."""
        tokenizer, num_rows = self.tokenizer, batch.num_rows
        # Those that only fill the batch up are copies: they end when their original does.
        row_numbers = np.full(num_rows, batch.indices[0], np.int32)
        row_numbers[: len(rows)] = batch.indices
        size = {"num_rows": num_rows, "length": batch.length}
        hypotheses = jax.device_get(
            generate(
                self.models,
                self.params,
                pad_rows(rows, **size, pad_id=tokenizer.pad_id),
                strategy=self.strategy,
                mask=make_length_mask(rows, **size),
                prefixes=pad_prefixes(list(map(self._encode_prefix, requests)), num_rows=num_rows),
                constraints=encode_constraints(
                    [request.constraints for request in requests], tokenizer, num_rows=num_rows
                ),
                max_lengths=rest_of_positions(
                    rows, self.strategy, self.max_positions, num_rows=num_rows
                ),
                row_numbers=row_numbers,
                combine=self.combine,
                eos_id=tokenizer.eos_id,
                pad_id=tokenizer.pad_id,
            )
        )
        for row, tokens, scores, lengths in zip(
            rows, hypotheses.tokens, hypotheses.scores, hypotheses.lengths, strict=False
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

    def _encode_prefix(self, request: Request) -> list[int]:
        """Return the tokens of a prefix, as the tokenizer writes it behind the prompt."""
        if not request.prefix:
            return []
        check_known(self.tokenizer, request.prefix)
        prompt = self.tokenizer.encode(request.text)
        tokens = self.tokenizer.encode(request.text + request.prefix)
        is_apart = tokens[: len(prompt)] == prompt
        tokens = tokens[len(prompt) :] if is_apart else self.tokenizer.encode(request.prefix)
        # A token that every output begins with is the strategy's to force, at no cost.
        is_forced = forced_first_id(self.strategy) is not None
        return [NO_TOKEN, *tokens] if tokens and is_forced else tokens


def _without_end(ids: np.ndarray, tokenizer: TextTokenizer) -> list[int]:
    tokens = ids.tolist()
    return tokens[:-1] if tokens[-1:] == [tokenizer.eos_id] else tokens


def rest_of_positions(
    rows: Sequence[Sequence[int]], strategy: Strategy, max_positions: int, *, num_rows: int
) -> Int[np.ndarray, " B"] | None:
    """Return the tokens that can follow each prompt, where they are fewer than asked for.

    The last token is never read, so that a prompt which fills all positions leaves room for one.
    """
    rest = pad_rows(
        [[max_positions + 1 - len(row)] for row in rows], num_rows=num_rows, length=1, pad_id=0
    )[:, 0]
    return None if rest.min() >= strategy.max_length else rest
