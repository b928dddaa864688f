"""What beam search knows between steps."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flax_transformer.array_types import Array, Bool, Float, Int
from flax_transformer.decoding.hypotheses import Cache, Hypotheses
from flax_transformer.decoding.row_options import NO_OPTIONS, RowOptions
from flax_transformer.decoding.search import grow_last_axis


class Beams(NamedTuple):
    """Beams of W hypotheses each; there are G of each row of the batch.

    Attributes:
        last: the last token of each unfinished hypothesis.
        log_probs: its log-probability; -inf where there are fewer.
        tokens: what it has generated.
        token_scores: log-probabilities of the tokens.
        coverage: attention to each position of the source, summed over the tokens; or None.
        finished: the W best finished hypotheses, best first.
        is_done: whether ``finished`` stays as it is.
    """

    last: Int[Array, "*B W"]
    log_probs: Float[Array, "*B W"]
    tokens: Int[Array, "*B W T"]
    token_scores: Float[Array, "*B W T"]
    coverage: Float[Array, "*B W S"] | None
    finished: Hypotheses
    is_done: Bool[Array, "*B"]


class BeamInputs(NamedTuple):
    """What beam search is given for each row and does not change.

    Attributes:
        options: limits and beginnings.
        constraints: sequences of tokens that outputs must hold, padded with -1 on the right; a row
            of fewer sequences has some of padding alone. None for no constraints.
        source_mask: positions of the source that the coverage penalty counts; None for all.
    """

    options: RowOptions = NO_OPTIONS
    constraints: Int[Array | np.ndarray, "B C L"] | None = None
    source_mask: Bool[Array, "B S"] | None = None


NO_INPUTS = BeamInputs()


class BeamState(NamedTuple):
    """The search after ``num_steps`` steps; its beams are [B, G, ...]."""

    num_steps: Int[Array, ""]
    beams: Beams
    inputs: BeamInputs
    cache: Cache

    @property
    def is_done(self) -> Bool[Array, "B G"]:
        """Whether the result of a beam cannot change any more."""
        return self.beams.is_done


def start_beams(
    shape: tuple[int, int, int],
    start_tokens: Int[Array, " B"],
    room: int,
    *,
    num_positions: int | None,
    pad_id: int,
) -> Beams:
    """Return beams of ``shape`` [B, G, W] before the first step.

    Args:
        shape: rows, beams of each row and hypotheses of each beam.
        start_tokens: what the first step reads.
        room: number of tokens that there is room for.
        num_positions: positions of the source to sum the attention to; None for no such sum.
        pad_id: fills ``tokens``.
    """
    tokens = jnp.full((*shape, room), pad_id, jnp.int32)
    token_scores = jnp.zeros((*shape, room), jnp.float32)
    # All rows of a beam start equal: all but the first are impossible, or they would stay equal.
    is_first = jnp.broadcast_to(jnp.arange(shape[-1]) == 0, shape)
    return Beams(
        last=jnp.broadcast_to(start_tokens[:, None, None], shape).astype(jnp.int32),
        log_probs=jnp.where(is_first, 0.0, -jnp.inf),
        tokens=tokens,
        token_scores=token_scores,
        coverage=None if num_positions is None else jnp.zeros((*shape, num_positions)),
        finished=Hypotheses(
            tokens, jnp.full(shape, -jnp.inf), token_scores, jnp.zeros(shape, jnp.int32)
        ),
        is_done=jnp.zeros(shape[:-1], bool),
    )


def grow_beams(beams: Beams, room: int, pad_id: int) -> Beams:
    """Make room for so many tokens."""

    def grow_tokens(tokens: Int[Array, "*B T"]) -> Int[Array, "*B room"]:
        return grow_last_axis(tokens, room, pad_id)

    def grow_scores(token_scores: Float[Array, "*B T"]) -> Float[Array, "*B room"]:
        return grow_last_axis(token_scores, room, 0.0)

    return beams._replace(
        tokens=grow_tokens(beams.tokens),
        token_scores=grow_scores(beams.token_scores),
        finished=beams.finished._replace(
            tokens=grow_tokens(beams.finished.tokens),
            token_scores=grow_scores(beams.finished.token_scores),
        ),
    )


def split_groups(beams: Beams, inputs: BeamInputs) -> tuple[Beams, BeamInputs]:
    """Make each beam of [B, G, ...] a row of its own, of [B * G, ...]."""
    num_rows, num_groups = beams.is_done.shape

    def split(array: Array) -> Array:
        return array.reshape(num_rows * num_groups, *array.shape[2:])

    def repeat(array: Array) -> Array:
        return array if num_groups == 1 else jnp.repeat(array, num_groups, axis=0)

    return jax.tree.map(split, beams), jax.tree.map(repeat, inputs)


def join_groups(beams: Beams, num_groups: int) -> Beams:
    """Undo :func:`split_groups`."""
    return jax.tree.map(lambda array: array.reshape(-1, num_groups, *array.shape[1:]), beams)
