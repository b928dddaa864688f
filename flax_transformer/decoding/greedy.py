"""Greedy decoding: the most probable token at every step."""

import dataclasses

from flax_transformer.array_types import Array, Float, Int
from flax_transformer.decoding.hypotheses import Cache, Hypotheses, StepFn
from flax_transformer.decoding.left_to_right import NextToken, make_left_to_right
from flax_transformer.decoding.length_limits import LengthLimits
from flax_transformer.decoding.logits_processors import LogitsProcessor, make_tuple
from flax_transformer.decoding.row_options import NO_OPTIONS, RowOptions
from flax_transformer.decoding.search import Search, run_search
from flax_transformer.decoding.top_k import top_k


@dataclasses.dataclass(frozen=True, kw_only=True)
class Greedy(LengthLimits):
    """Take the most probable token at every step.

    Scores are the sums of log-probabilities: no length divides them, as it does in
    :class:`.BeamSearch`.
    :class:`LengthLimits` has the other attributes.

    Attributes:
        processors: applied to the logits of every step, in this order.
    """

    processors: tuple[LogitsProcessor, ...] = ()

    def __post_init__(self) -> None:
        """Refuse lengths that cannot be met."""
        super().__post_init__()
        make_tuple(self, "processors")


def greedy_search(
    step_fn: StepFn,
    cache: Cache,
    start_tokens: Int[Array, " B"],
    *,
    strategy: Greedy,
    eos_id: int,
    pad_id: int,
    rows: RowOptions = NO_OPTIONS,
) -> Hypotheses:
    """Decode one hypothesis for each row; ``step_fn`` is called with a beam of one row.

    Args:
        step_fn: maps the last tokens and the cache to logits and the new cache.
        cache: the cache before the first step.
        start_tokens: what the first step reads.
        strategy: lengths and processors.
        eos_id: token that ends a hypothesis.
        pad_id: fills ``tokens`` after the end.
        rows: limits and prefixes, row by row.
    """
    return run_search(
        make_greedy(strategy, eos_id=eos_id, pad_id=pad_id, rows=rows),
        step_fn,
        cache,
        start_tokens,
        max_length=strategy.max_length,
    )


def make_greedy(
    strategy: Greedy, *, eos_id: int, pad_id: int, rows: RowOptions = NO_OPTIONS
) -> Search:
    """Return greedy decoding as functions of a state; arguments as for :func:`greedy_search`.

    Only ``start`` reads ``rows``: from then on they are in the state.
    """

    def choose(token: NextToken) -> tuple[Int[Array, "B 1"], Float[Array, "B 1"]]:
        best, ids = top_k(token.allowed, 1)
        return ids[..., 0], best[..., 0] - token.normalizer

    return make_left_to_right(
        choose,
        num_hypotheses=1,
        min_length=strategy.min_length,
        processors=strategy.processors,
        eos_id=eos_id,
        pad_id=pad_id,
        rows=rows,
    )
