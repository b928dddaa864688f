"""Words of tokens, and which of them attend to which."""

from pathlib import Path

import numpy as np
from tiny_public_tokenizers import write_bart

from flax_transformer.data.public_tokenizer import TokenizerDescription, make_public_tokenizer
from flax_transformer.evaluation.alignment import align_words, words_of_tokens


def test_special_tokens_belong_to_no_word(tmp_path: Path) -> None:
    size = write_bart(tmp_path)
    description = TokenizerDescription(
        kind="json",
        source_vocab_size=size,
        target_vocab_size=size,
        pad_id=1,
        bos_id=0,
        eos_id=2,
        mask_id=4,
    )
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    tokenizer = make_public_tokenizer(files, description).target
    text = tokenizer.encode("the cat sees it")
    words = words_of_tokens([0, *text, 2], tokenizer)
    assert (words[0], words[-1]) == (None, None)
    assert words[1:-1] == words_of_tokens(text, tokenizer)
    assert {word for word in words if word is not None} == {0, 1, 2, 3}


def test_words_of_sentencepiece_are_those_between_spaces(tiny_translator) -> None:
    tokenizer = tiny_translator.tokenizer.source
    line = tiny_translator.pairs[0].source
    words = words_of_tokens(tokenizer.encode(line), tokenizer)
    assert {word for word in words if word is not None} == set(range(len(line.split())))


def test_what_belongs_to_no_word_is_passed_over() -> None:
    attention = np.array([[0.9, 0.0, 0.1, 0.0], [0.7, 0.2, 0.1, 0.0], [0.0, 0.1, 0.2, 0.7]])
    assert align_words(attention, [None, 0, 1], [None, 0, 1]) == ((0, 0), (1, 1))
    assert align_words(attention, [None, None], [0, 1, 2]) == ()
    assert align_words(attention, [0, 1], [None] * 3) == ()
