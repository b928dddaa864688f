"""Decoding with a model: the binding of an encoder–decoder to a search."""

import dataclasses
import functools
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding

from flax_transformer.array_types import Array, Bool, Float, Int, Parameters, UInt32
from flax_transformer.decoding.beam_search import BeamSearch, beam_search
from flax_transformer.decoding.greedy import Greedy, greedy_search
from flax_transformer.decoding.hypotheses import Hypotheses
from flax_transformer.decoding.sampling import Sampling, make_row_keys, sample
from flax_transformer.errors import InputError
from flax_transformer.models.encoder_decoder import DecoderCache, EncoderDecoder, reorder_cache
from flax_transformer.models.stack import unstack_layers
from flax_transformer.parallel.processes import place_whole

Strategy: TypeAlias = Greedy | Sampling | BeamSearch


def generate(
    model: EncoderDecoder,
    params: Parameters,
    inputs: Int[Array | np.ndarray, "B S"],
    *,
    strategy: Strategy,
    mask: Bool[Array | np.ndarray, "B S"] | None = None,
    row_numbers: Int[Array | np.ndarray, " B"] | None = None,
    sharding: NamedSharding | None = None,
    bos_id: int,
    eos_id: int,
    pad_id: int,
) -> Hypotheses:
    """Generate the target of each source; compiled once for each shape and strategy.

    The encoder runs once a sentence, and so do the keys and values of cross-attention, which all
    hypotheses share. A row without any token (a mask of False) gives some finite result.

    Args:
        model: the model; stacked layers are unstacked here, since a step is faster without scan.
        params: its parameters.
        inputs: source tokens, padded.
        strategy: how to search.
        mask: True on the source's tokens; None where there is no padding.
        row_numbers: what tells rows apart for :class:`Sampling`, which gives a row the same outputs
            in every batch where it has the same number; None for 0, 1, …
        sharding: how the rows lie on a mesh that ``params`` lie on too, for arrays of NumPy, which
            every process must hold whole; None for where they lie already.
        bos_id: token that the decoder reads first.
        eos_id: token that ends an output.
        pad_id: fills the outputs after their end.

    Raises:
        InputError: a token is outside the vocabulary, or a length is over ``max_positions``.
    """
    check_tokens("inputs", inputs, model.config.source_vocab_size)
    vocab_size = model.config.target_vocab_size
    if isinstance(strategy, BeamSearch) and strategy.beam_size > vocab_size:
        raise InputError(
            f"beam_size must be at most the {vocab_size} tokens of the target, "
            f"got {strategy.beam_size}."
        )
    if row_numbers is None:
        row_numbers = np.arange(len(inputs), dtype=np.int32)
    seed = np.uint32(0)
    if isinstance(strategy, Sampling):
        # An argument of the program rather than a part of it: another seed needs no other program.
        seed, strategy = np.uint32(strategy.seed), dataclasses.replace(strategy, seed=0)
    if sharding is not None:
        place = functools.partial(place_whole, sharding=sharding)
        inputs, mask, row_numbers = jax.tree.map(place, (inputs, mask, row_numbers))
    return _generate(
        model, params, inputs, mask, row_numbers, seed, strategy, bos_id, eos_id, pad_id
    )


def check_tokens(name: str, tokens: Int[Array | np.ndarray, "*B"], vocab_size: int) -> None:
    """Raise InputError if a token is outside the vocabulary; on the host, before any tracing."""
    tokens = np.asarray(tokens)
    if tokens.size and (tokens.min() < 0 or tokens.max() >= vocab_size):
        raise InputError(
            f"{name} must hold tokens from 0 to {vocab_size - 1}, "
            f"got {tokens.min()} to {tokens.max()}."
        )


@functools.partial(jax.jit, static_argnames=("model", "strategy", "bos_id", "eos_id", "pad_id"))
def _generate(
    model: EncoderDecoder,
    params: Parameters,
    inputs: Int[Array, "B S"],
    mask: Bool[Array, "B S"] | None,
    row_numbers: Int[Array, " B"],
    seed: UInt32[Array, ""],
    strategy: Strategy,
    bos_id: int,
    eos_id: int,
    pad_id: int,
) -> Hypotheses:
    if model.config.scan_layers:
        model = EncoderDecoder(dataclasses.replace(model.config, scan_layers=False))
        params = unstack_layers(params)
    variables = {"params": params}
    encoded = model.apply(variables, inputs, mask, method="encode")
    cache = model.apply(
        variables,
        encoded,
        mask,
        beam_size=_num_hypotheses(strategy),
        max_length=strategy.max_length,
        method="init_cache",
    )

    def step_fn(
        tokens: Int[Array, "B W"], cache: DecoderCache
    ) -> tuple[Float[Array, "B W V"], DecoderCache]:
        return model.apply(variables, tokens, cache, method="decode_step")

    start_tokens = jnp.full((inputs.shape[0],), bos_id, jnp.int32)
    if isinstance(strategy, BeamSearch):
        return beam_search(
            step_fn,
            reorder_cache,
            cache,
            start_tokens,
            strategy=strategy,
            eos_id=eos_id,
            pad_id=pad_id,
        )
    if isinstance(strategy, Sampling):
        return sample(
            step_fn,
            cache,
            start_tokens,
            strategy=strategy,
            eos_id=eos_id,
            pad_id=pad_id,
            row_keys=make_row_keys(seed, row_numbers),
        )
    return greedy_search(
        step_fn, cache, start_tokens, strategy=strategy, eos_id=eos_id, pad_id=pad_id
    )


def _num_hypotheses(strategy: Strategy) -> int:
    """Return how many hypotheses of a row the step function continues at once."""
    match strategy:
        case BeamSearch():
            return strategy.beam_size
        case Sampling():
            return strategy.num_samples
        case Greedy():
            return 1
