"""Streaming yields what decoding at once returns."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from flax_transformer.decoding import programs, room
from flax_transformer.decoding.beam_strategy import BeamSearch
from flax_transformer.decoding.generate import generate
from flax_transformer.decoding.greedy import Greedy
from flax_transformer.decoding.sampling import Sampling
from flax_transformer.decoding.stream import stream
from flax_transformer.errors import InputError

OPTIONS = {"bos_id": 1, "eos_id": 2, "pad_id": 0}
T = 9


@pytest.mark.parametrize("strategy", [Greedy(max_length=T), Sampling(max_length=T, seed=1)])
@pytest.mark.parametrize("chunk_size", [1, 4])
def test_the_tokens_are_those_of_generate(tiny, sources, strategy, chunk_size, monkeypatch):
    arguments = (tiny.model, tiny.params, sources.tokens)
    options = {**OPTIONS, "strategy": strategy, "mask": sources.mask}
    expected = generate(*arguments, **options)
    monkeypatch.setattr(room, "_FIRST_ROOM", 3)
    steps = list(stream(*arguments, **options, chunk_size=chunk_size))
    assert len(steps) == expected.lengths.max()
    np.testing.assert_array_equal(np.stack(steps, axis=1), expected.tokens[:, 0, : len(steps)])


def test_the_first_token_comes_before_the_second_is_made(tiny, sources, monkeypatch):
    limits = []
    advance = programs.advance

    def recorded_advance(task, params, state, limit, enough_done):
        limits.append(limit)
        return advance(task, params, state, limit, enough_done)

    monkeypatch.setattr(programs, "advance", recorded_advance)
    tokens = stream(
        tiny.model, tiny.params, sources.tokens[:1], strategy=Greedy(max_length=T), **OPTIONS
    )
    assert limits == []
    assert next(tokens).shape == (1,)
    assert limits == [1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"strategy": BeamSearch()}, "strategy must be Greedy or Sampling to stream"),
        ({"strategy": Sampling(num_samples=2)}, "num_samples must be 1 to stream, got 2"),
        ({"strategy": Greedy(max_length=4), "chunk_size": 0}, "chunk_size must be at least 1"),
        ({"strategy": Greedy(max_length=18)}, "max_length must be at most max_positions"),
    ],
)
def test_what_cannot_be_streamed_is_refused_at_once(tiny, sources, options, message):
    with pytest.raises(InputError, match=message):
        stream(tiny.model, tiny.params, sources.tokens, **OPTIONS, **options)


@pytest.mark.parametrize("kind", [Greedy, Sampling])
@pytest.mark.parametrize("num_possible", [0, 3])
def test_where_no_token_is_left_padding_is_yielded(tiny, sources, kind, num_possible):
    @dataclasses.dataclass(frozen=True)
    class DeadEnd:
        """Lets nothing come from a place on, and no end before it."""

        place: int

        def __call__(self, log_probs, tokens, num_tokens):
            is_end = jnp.arange(log_probs.shape[-1]) == OPTIONS["eos_id"]
            is_ruled_out = is_end | (num_tokens >= self.place)
            return jnp.where(is_ruled_out, -jnp.inf, log_probs)

    strategy = kind(max_length=5, processors=(DeadEnd(num_possible),))
    steps = list(stream(tiny.model, tiny.params, sources.tokens, strategy=strategy, **OPTIONS))
    tokens = np.stack(steps, axis=1)
    assert tokens.shape[1] == 5
    assert (tokens[:, num_possible:] == OPTIONS["pad_id"]).all()
    before = kind(max_length=num_possible + 1, processors=(DeadEnd(99),))
    expected = generate(tiny.model, tiny.params, sources.tokens, strategy=before, **OPTIONS)
    np.testing.assert_array_equal(tokens[:, :num_possible], expected.tokens[:, 0, :num_possible])
