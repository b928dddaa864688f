"""Greedy decoding: the most probable token at every step."""

import dataclasses

from flax_transformer.array_types import Array, Float, Int
from flax_transformer.decoding.hypotheses import Cache, Hypotheses, StepFn
from flax_transformer.decoding.left_to_right import NextToken, decode_left_to_right
from flax_transformer.decoding.logits_processors import LogitsProcessor
from flax_transformer.decoding.top_k import top_k
from flax_transformer.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Greedy:
    """Take the most probable token at every step.

    Attributes:
        max_length: generated tokens at most, with the end token.
        min_length: generated tokens at least, with the end token.
        processors: applied to the logits of every step, in this order.
    """

    max_length: int = 128
    min_length: int = 0
    processors: tuple[LogitsProcessor, ...] = ()

    def __post_init__(self) -> None:
        """Refuse lengths that cannot be met."""
        check_lengths(self.min_length, self.max_length)


def check_lengths(min_length: int, max_length: int) -> None:
    """Raise InputError unless ``0 <= min_length <= max_length`` and ``max_length >= 1``."""
    if max_length < 1:
        raise InputError(f"max_length must be at least 1, got {max_length}.")
    if not 0 <= min_length <= max_length:
        raise InputError(
            f"min_length must lie between 0 and max_length = {max_length}, got {min_length}."
        )


def greedy_search(
    step_fn: StepFn,
    cache: Cache,
    start_tokens: Int[Array, " B"],
    *,
    strategy: Greedy,
    eos_id: int,
    pad_id: int,
) -> Hypotheses:
    """Decode one hypothesis for each row; ``step_fn`` is called with a beam of one row.

    Args:
        step_fn: maps the last tokens and the cache to logits and the new cache.
        cache: the cache before the first step.
        start_tokens: what the first step reads.
        strategy: lengths and processors.
        eos_id: token that ends a hypothesis.
        pad_id: fills ``tokens`` after the end.
    """

    def choose(token: NextToken) -> tuple[Int[Array, "B 1"], Float[Array, "B 1"]]:
        best, ids = top_k(token.allowed, 1)
        return ids[..., 0], best[..., 0] - token.normalizer

    return decode_left_to_right(
        step_fn,
        cache,
        start_tokens[:, None],
        choose,
        min_length=strategy.min_length,
        max_length=strategy.max_length,
        processors=strategy.processors,
        eos_id=eos_id,
        pad_id=pad_id,
    )
