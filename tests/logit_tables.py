"""A step function without a model, and the searches over it in plain Python.

The logits of step t are looked up by the last two tokens, so that a search that forgets to reorder
its cache is found out.
"""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

EOS, PAD, START = 0, -1, 1


class TableCache(NamedTuple):
    """Tables of logits [B T V V V] by step, last token but one and last; what was read; steps."""

    tables: jax.Array
    previous: jax.Array
    index: jax.Array


def init_cache(tables: np.ndarray, beam_size: int) -> TableCache:
    previous = jnp.full((len(tables), beam_size), START)
    return TableCache(jnp.asarray(tables), previous, jnp.array(0))


def table_step(tokens: jax.Array, cache: TableCache) -> tuple[jax.Array, TableCache]:
    rows = jnp.arange(tokens.shape[0])[:, None]
    # A finished row reads padding; whatever it gets must not matter.
    logits = cache.tables[rows, cache.index, cache.previous, jnp.maximum(tokens, 0)]
    return logits, TableCache(cache.tables, jnp.maximum(tokens, 0), cache.index + 1)


def reorder(cache: TableCache, parents: jax.Array) -> TableCache:
    return cache._replace(previous=jnp.take_along_axis(cache.previous, parents, axis=1))


def make_tables(seed: int, *shape: int, impossible: float = 0.0) -> np.ndarray:
    """Random tables of [B T V V V], with a share of impossible tokens."""
    rng = np.random.default_rng(seed)
    batch_size, length, vocab_size = shape
    size = (batch_size, length, vocab_size, vocab_size, vocab_size)
    tables = 2.0 * rng.normal(size=size)
    return np.where(rng.random(size) < impossible, -np.inf, tables).astype(np.float32)


def st_tables(batch_size: int, length: int, vocab_size: int) -> st.SearchStrategy[np.ndarray]:
    """Tables of [B T V V V] with impossible tokens and, for few different values, many ties."""
    values = st.one_of(
        st.sampled_from([-np.inf, 0.0, 1.0]), st.floats(-6.0, 6.0, width=32, allow_nan=False)
    )
    shape = (batch_size, length, vocab_size, vocab_size, vocab_size)
    return arrays(np.float32, shape, elements=values, fill=values)


class Path(NamedTuple):
    """A hypothesis in plain Python."""

    tokens: tuple[int, ...] = ()
    log_prob: float = 0.0

    @property
    def is_finished(self) -> bool:
        return self.tokens[-1:] == (EOS,)

    def score(self, normalization: str, alpha: float) -> float:
        length = len(self.tokens)
        base = {"power": length, "gnmt": (5 + length) / 6, "none": 1}[normalization]
        return self.log_prob / base**alpha


def continuations(table: np.ndarray, path: Path, min_length: int = 0) -> Iterator[Path]:
    """All possible ways to continue a path by one token; ``table`` is that of one row."""
    last_two = (START, START, *path.tokens)[-2:]
    logits = table[len(path.tokens)][last_two].astype(np.float64)
    if np.isneginf(logits).all():
        return
    log_probs = logits - np.logaddexp.reduce(logits)
    for token, log_prob in enumerate(log_probs):
        is_early = token == EOS and len(path.tokens) + 1 < min_length
        if log_prob > -np.inf and not is_early:
            yield Path((*path.tokens, token), path.log_prob + log_prob)


def all_paths(table: np.ndarray, min_length: int = 0) -> list[Path]:
    """Every finished path and every path as long as the table."""
    found, unfinished = [], [Path()]
    for _ in range(len(table)):
        longer = list(
            itertools.chain(*(continuations(table, path, min_length) for path in unfinished))
        )
        found += [path for path in longer if path.is_finished]
        unfinished = [path for path in longer if not path.is_finished]
    return found + unfinished
