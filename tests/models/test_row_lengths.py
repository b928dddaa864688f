"""Rows beyond the last position are refused where positions have an end."""

import jax.numpy as jnp
import pytest
from tiny_public_models import make_public

from flax_transformer.decoding.generate import generate
from flax_transformer.decoding.greedy import Greedy
from flax_transformer.errors import InputError

ROW = jnp.full((1, 9), 5)


def test_relative_positions_have_no_end() -> None:
    short, long = (make_public("T5ForConditionalGeneration", max_positions=n) for n in (4, 64))
    variables = {"params": short.params}
    found = short.model.apply(variables, ROW, ROW)
    assert (found == long.model.apply(variables, ROW, ROW)).all()
    strategy = Greedy(max_length=8)
    outputs = generate(
        short.model, short.params, ROW, strategy=strategy, bos_id=0, eos_id=22, pad_id=0
    )
    assert outputs.tokens.shape[-1] == 8


@pytest.mark.parametrize("class_name", ["BartForConditionalGeneration", "MarianMTModel"])
def test_other_positions_have_one(class_name: str) -> None:
    model, params, *_ = make_public(class_name, max_positions=4)
    with pytest.raises(InputError, match="at most max_positions = 4 tokens long, got 9"):
        model.apply({"params": params}, ROW, ROW)
    strategy = Greedy(max_length=8)
    with pytest.raises(InputError, match="max_length must be at most max_positions = 4, got 8"):
        generate(model, params, ROW[:, :3], strategy=strategy, bos_id=0, eos_id=2, pad_id=0)
