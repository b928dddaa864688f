"""What files say of the search, and what follows from it."""

import json
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from flax_transformer.interop.generation_defaults import (
    read_generation_defaults,
    write_generation_defaults,
)


def write(directory: Path, config: dict[str, Any], generation: dict[str, Any] | None) -> None:
    (directory / "config.json").write_text(json.dumps(config))
    if generation is not None:
        (directory / "generation_config.json").write_text(json.dumps(generation))


PAIR = {"is_encoder_decoder": True}


@pytest.mark.parametrize(
    ("config", "generation", "start"),
    [
        ({**PAIR, "pad_token_id": 0, "eos_token_id": 1}, None, 0),
        (PAIR, {"pad_token_id": 0, "eos_token_id": 1}, 0),
        ({**PAIR, "decoder_start_token_id": 3}, {"pad_token_id": 0, "eos_token_id": 1}, 3),
        ({**PAIR, "decoder_start_token_id": 3}, {"decoder_start_token_id": 4}, 4),
        ({**PAIR, "bos_token_id": 5, "pad_token_id": 1}, None, 5),
        (PAIR, {"bos_token_id": 0, "pad_token_id": 1}, 0),
        ({"bos_token_id": 5, "pad_token_id": 1}, None, None),
    ],
)
def test_a_decoder_begins_with_what_is_named_or_else_as_in_the_library(
    tmp_path: Path, config: dict[str, Any], generation: dict[str, Any] | None, start: int | None
) -> None:
    write(tmp_path, config, generation)
    assert read_generation_defaults(tmp_path).start_id == start


def test_an_end_that_must_not_come_adds_nothing_to_the_other(tmp_path: Path) -> None:
    write(tmp_path, {}, {"eos_token_id": [2, 0, 1], "suppress_tokens": [0]})
    log_probs = jnp.log(jnp.array([[[0.125, 0.25, 0.125, 0.5]]]))
    tokens = jnp.zeros((1, 1, 4), int)
    defaults = read_generation_defaults(tmp_path)
    for processor in defaults.processors(max_length=4, eos_id=2):
        log_probs = processor(log_probs, tokens, jnp.array(0))
    np.testing.assert_allclose(np.exp(log_probs)[0, 0], [0.0, 0.0, 0.375, 0.5], atol=1e-6)


def test_a_word_cannot_forbid_to_end(tmp_path: Path) -> None:
    write(tmp_path, {}, {"eos_token_id": [2, 3], "bad_words_ids": [[2], [4], [5, 2], [3]]})
    defaults = read_generation_defaults(tmp_path)
    assert (defaults.suppressed_ids, defaults.bad_words) == ((4,), ((5, 2),))


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    values = {"eos_token_id": [2, 3], "suppress_tokens": [2, 5], "bad_words_ids": [[4, 2]]}
    write(tmp_path, {}, values)
    defaults = read_generation_defaults(tmp_path)
    assert write_generation_defaults(defaults) == values
