"""The tokens of prefixes and constraints, of tokenizers that spell words in several ways."""

import numpy as np
import pytest
from tiny_public_tokenizers import write_bart, write_marian

from flax_transformer.data.public_tokenizer import TokenizerDescription, make_public_tokenizer
from flax_transformer.errors import InputError
from flax_transformer.evaluation.request_tokens import (
    encode_constraints,
    encode_text,
    encode_word,
    pad_prefixes,
)


def read(directory, size, **description):
    files = {path.name: path.read_bytes() for path in directory.iterdir()}
    return make_public_tokenizer(
        files,
        TokenizerDescription(source_vocab_size=size, target_vocab_size=size, **description),
    ).target


@pytest.fixture(scope="module")
def byte_level(tmp_path_factory):
    directory = tmp_path_factory.mktemp("bart")
    size = write_bart(directory)
    return read(directory, size, kind="json", pad_id=1, bos_id=2, eos_id=2, mask_id=4)


@pytest.fixture(scope="module")
def pieces(tmp_path_factory):
    directory = tmp_path_factory.mktemp("marian")
    size = write_marian(directory)
    last = size - 1
    return read(directory, size, kind="pieces", pad_id=last, bos_id=last, eos_id=0, mask_id=1)


def test_constraints_stand_behind_a_space_and_prefixes_at_the_beginning(byte_level, pieces):
    for tokenizer in (byte_level, pieces):
        before = encode_text(tokenizer, "o navio")
        assert tokenizer.decode(before) == "o navio"
        behind = tokenizer.decode([*before, *encode_word(tokenizer, "gato")])
        assert behind == "o navio gato"


def test_rows_that_are_missing_are_as_the_first(pieces):
    constraints = encode_constraints([["gato", "o"], []], pieces, num_rows=4)
    np.testing.assert_array_equal(constraints[2], constraints[0])
    assert (constraints[1] == -1).all()
    prefixes = pad_prefixes([[4, 5], [6]], num_rows=3)
    np.testing.assert_array_equal(prefixes[2], prefixes[0])


def test_characters_without_a_token_are_named(byte_level, pieces):
    with pytest.raises(InputError, match="got '日' in 'o 日'"):
        encode_text(pieces, "o 日")
    assert byte_level.decode(encode_text(byte_level, "日")) == "日"
