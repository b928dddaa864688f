"""Sampling: tokens drawn from the distribution of the model, or from a part of it."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from flax_transformer.array_types import Array, Float, Int, Key
from flax_transformer.decoding.hypotheses import Cache, Hypotheses, StepFn
from flax_transformer.decoding.left_to_right import NextToken, make_left_to_right
from flax_transformer.decoding.length_limits import LengthLimits
from flax_transformer.decoding.logits_processors import (
    LogitsProcessor,
    log_normalizer,
    make_tuple,
)
from flax_transformer.decoding.row_options import NO_OPTIONS, RowOptions
from flax_transformer.decoding.sampling_filters import (
    keep_min_p,
    keep_top_k,
    keep_top_p,
    keep_typical,
)
from flax_transformer.decoding.search import Search, run_search
from flax_transformer.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampling(LengthLimits):
    """Draw every token at random.

    The distribution is divided by the temperature, then cut by the filters that are given, in the
    order of the attributes, each one reading what the one before has left. :class:`LengthLimits`
    has the other attributes.

    Attributes:
        temperature: divides the logits; below 1 the probable tokens gain.
        top_k: keep the k most probable tokens; 1 is greedy decoding.
        top_p: keep the fewest most probable tokens of this probability together (nucleus).
        min_p: keep the tokens at least this share as probable as the most probable one.
        typical_p: keep the fewest most typical tokens of this probability together.
        num_samples: independent outputs of each input.
        seed: the same seed gives the same outputs.
        processors: applied to the logits of every step, in this order, before the temperature.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    typical_p: float | None = None
    num_samples: int = 1
    seed: int = 0
    processors: tuple[LogitsProcessor, ...] = ()

    def __post_init__(self) -> None:
        """Refuse options that cannot work."""
        super().__post_init__()
        make_tuple(self, "processors")
        if not 0.0 < self.temperature < math.inf:
            raise InputError(
                f"temperature must be positive and finite, got {self.temperature}. "
                "Use top_k = 1 for the most probable token."
            )
        if self.top_k is not None and self.top_k < 1:
            raise InputError(f"top_k must be at least 1, got {self.top_k}.")
        for name in ("top_p", "min_p", "typical_p"):
            share = getattr(self, name)
            if share is not None and not 0.0 < share <= 1.0:
                raise InputError(f"{name} must lie above 0 and not above 1, got {share}.")
        if self.num_samples < 1:
            raise InputError(f"num_samples must be at least 1, got {self.num_samples}.")
        if not 0 <= self.seed < 1 << 32:
            raise InputError(f"seed must lie between 0 and {(1 << 32) - 1}, got {self.seed}.")


def make_row_keys(
    seed: int | np.uint32 | Int[Array, ""], row_numbers: Int[Array, " B"]
) -> Key[Array, " B"]:
    """Return the random key of each row: a function of the seed and of its number alone.

    >>> first, second = make_row_keys(0, jnp.array([3, 7]))
    >>> bool(second == make_row_keys(0, jnp.array([7]))[0])
    True
    """
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), row_numbers)


def sample(
    step_fn: StepFn,
    cache: Cache,
    start_tokens: Int[Array, " B"],
    *,
    strategy: Sampling,
    eos_id: int,
    pad_id: int,
    row_keys: Key[Array, " B"] | None = None,
    rows: RowOptions = NO_OPTIONS,
) -> Hypotheses:
    """Draw ``num_samples`` hypotheses for each row, and sort them by probability.

    Token t of sample w is drawn with a key that depends on the key of its row, w and t alone: not
    on the other rows of the batch, nor on how many samples or steps there are. Scores are the
    model's log-probabilities, before temperature and filters; no processor makes them less.

    Args:
        step_fn: maps the last tokens and the cache to logits and the new cache; it is called with
            a beam of ``num_samples``.
        cache: the cache before the first step.
        start_tokens: what the first step reads.
        strategy: options of the sampling.
        eos_id: token that ends a hypothesis.
        pad_id: fills ``tokens`` after the end.
        row_keys: see :func:`make_row_keys`; None for the strategy's seed and rows 0, 1, …
        rows: limits and prefixes, row by row.
    """
    if row_keys is None:
        row_keys = make_row_keys(np.uint32(strategy.seed), jnp.arange(start_tokens.shape[0]))
    return run_search(
        make_sampling(strategy, eos_id=eos_id, pad_id=pad_id, row_keys=row_keys, rows=rows),
        step_fn,
        cache,
        start_tokens,
        max_length=strategy.max_length,
    )


def make_sampling(
    strategy: Sampling,
    *,
    eos_id: int,
    pad_id: int,
    row_keys: Key[Array, " B"] | None,
    rows: RowOptions = NO_OPTIONS,
) -> Search:
    """Return sampling as functions of a state; arguments as for :func:`sample`.

    Only ``start`` reads ``rows`` and ``row_keys``, which may be None where it is not called.
    """
    keys = None
    if row_keys is not None:
        fold_in_each = jax.vmap(jax.random.fold_in, (None, 0))
        keys = jax.vmap(fold_in_each, (0, None))(row_keys, jnp.arange(strategy.num_samples))

    def choose(token: NextToken) -> tuple[Int[Array, "B W"], Float[Array, "B W"]]:
        if token.keys is None:
            raise InputError("row_keys must be given to start sampling, got none.")
        filtered = filter_logits(token.allowed, strategy)
        ids = _draw(token.keys, token.position, filtered)
        of_model = _take(token.logits, ids) - log_normalizer(token.logits)
        # More than the model's is what a token that is forced, or stands for others, shall count.
        scores = jnp.maximum(of_model, _take(token.allowed, ids) - token.normalizer)
        # Where nothing is left, what is drawn is not possible.
        return ids, jnp.where(_take(filtered, ids) == -jnp.inf, -jnp.inf, scores)

    search = make_left_to_right(
        choose,
        num_hypotheses=strategy.num_samples,
        min_length=strategy.min_length,
        processors=strategy.processors,
        eos_id=eos_id,
        pad_id=pad_id,
        rows=rows,
        keys=keys,
    )
    return search._replace(collect=lambda state: _sort_by_score(search.collect(state)))


def _sort_by_score(samples: Hypotheses) -> Hypotheses:
    order = jnp.argsort(-samples.scores, axis=1)
    return jax.tree.map(
        lambda field: jnp.take_along_axis(
            field, order.reshape(order.shape + (1,) * (field.ndim - 2)), axis=1
        ),
        samples,
    )


def filter_logits(logits: Float[Array, "B W V"], strategy: Sampling) -> Float[Array, "B W V"]:
    """Return the logits of what a token is drawn from, -inf for what is cut off.

    >>> filter_logits(jnp.array([[[0.0, 1.0, 3.0]]]), Sampling(temperature=0.5, top_k=2))
    Array([[[-inf,  -4.,   0.]]], dtype=float32)
    """
    best = logits.max(axis=-1, keepdims=True)
    # From 0 downwards, so that no temperature is too low; the difference of two infinities is NaN.
    # A number so small that float32 rounds it to 0 stands for the smallest one.
    temperature = max(strategy.temperature, float(jnp.finfo(jnp.float32).tiny))
    filtered = (logits - jnp.where(best == -jnp.inf, 0.0, best)) / temperature
    if strategy.top_k is not None:
        filtered = keep_top_k(filtered, strategy.top_k)
    if strategy.top_p is not None:
        filtered = keep_top_p(filtered, strategy.top_p)
    if strategy.min_p is not None:
        filtered = keep_min_p(filtered, strategy.min_p)
    if strategy.typical_p is not None:
        filtered = keep_typical(filtered, strategy.typical_p)
    return filtered


def _draw(
    keys: Key[Array, "B W"], position: Int[Array, ""], logits: Float[Array, "B W V"]
) -> Int[Array, "B W"]:
    """Draw a token from each distribution, with the key of its hypothesis and of the position."""

    def draw(key: Key[Array, ""], logits: Float[Array, " V"]) -> Int[Array, ""]:
        return jax.random.categorical(jax.random.fold_in(key, position), logits)

    return jax.vmap(jax.vmap(draw))(keys, logits)


def _take(logits: Float[Array, "B W V"], ids: Int[Array, "B W"]) -> Float[Array, "B W"]:
    return jnp.take_along_axis(logits, ids[..., None], axis=-1)[..., 0]
