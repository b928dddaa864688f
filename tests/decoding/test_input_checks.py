"""Arguments of another shape or kind than they must be are named, before anything is compiled."""

import numpy as np
import pytest

from flax_transformer.decoding.beam_strategy import BeamSearch
from flax_transformer.decoding.generate import generate
from flax_transformer.decoding.greedy import Greedy
from flax_transformer.decoding.prepare import prepare_to_decode
from flax_transformer.decoding.score import score
from flax_transformer.decoding.token_constraints import BadWords, ForcedPrefix, SuppressedTokens
from flax_transformer.errors import InputError

PAD, BOS, EOS = 0, 1, 2


def run(tiny, sources, **changes):
    arguments = {
        "inputs": sources.tokens,
        "strategy": BeamSearch(beam_size=2, max_length=4),
        "bos_id": BOS,
        "eos_id": EOS,
        "pad_id": PAD,
    }
    arguments |= changes
    return generate(tiny.model, tiny.params, arguments.pop("inputs"), **arguments)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": np.full(5, 3)}, r"inputs must be .* got the shape \(5,\)"),
        ({"inputs": np.zeros((0, 5), int)}, r"inputs must be .* got the shape \(0, 5\)"),
        ({"mask": np.ones((7, 4), bool)}, r"mask must have the shape \(7, 5\)"),
        ({"prefixes": np.full(7, 3)}, r"prefixes must be .* 2 axes and 7 rows"),
        ({"constraints": np.full((7, 2), 3)}, "constraints must be .* 3 axes"),
        ({"row_numbers": np.arange(2)}, r"row_numbers must be .* 7 rows, got the shape \(2,\)"),
        ({"max_lengths": np.full((7, 1), 3)}, "max_lengths must be .* 1 axes"),
        ({"max_lengths": np.zeros(7, int)}, "max_lengths must be at least 1, got 0"),
        ({"eos_id": -1}, "eos_id must lie between 0 and 10, got -1"),
        ({"eos_id": 11}, "eos_id must lie between 0 and 10, got 11"),
    ],
)
def test_what_is_wrong_is_named(tiny, sources, changes, message):
    with pytest.raises(InputError, match=message):
        run(tiny, sources, **changes)


def test_lists_are_taken_for_tuples():
    lists = Greedy(processors=[SuppressedTokens([3]), BadWords([[3, 4]]), ForcedPrefix([5])])
    tuples = Greedy(processors=(SuppressedTokens((3,)), BadWords(((3, 4),)), ForcedPrefix((5,))))
    assert lists == tuples
    assert hash(lists) == hash(tuples)


def test_parameters_that_are_prepared_are_so_once_and_to_decode_alone(tiny, sources):
    model, prepared = prepare_to_decode(tiny.model, tiny.params)
    with pytest.raises(InputError, match="got parameters that are prepared"):
        prepare_to_decode(model, prepared)
    with pytest.raises(InputError, match="got prepared parameters"):
        score(model, prepared, sources.tokens, sources.tokens % 11, sources.tokens % 11)
    with pytest.raises(InputError, match="got those of one"):
        generate(
            (model, model),
            prepared,
            sources.tokens,
            strategy=Greedy(max_length=2),
            bos_id=BOS,
            eos_id=EOS,
            pad_id=PAD,
        )


def test_rows_may_have_limits_of_their_own(tiny, sources):
    strategy = Greedy(max_length=6, min_length=6)
    found = run(tiny, sources, strategy=strategy, max_lengths=np.arange(1, 8))
    free = run(tiny, sources, strategy=strategy)
    np.testing.assert_array_equal(found.lengths[:, 0], [1, 2, 3, 4, 5, 6, 6])
    is_token = np.arange(6) < np.asarray(found.lengths)[..., None]
    np.testing.assert_array_equal(found.tokens, np.where(is_token, free.tokens, PAD))
