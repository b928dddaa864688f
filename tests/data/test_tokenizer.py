"""Tokenizers: no text is lost, nothing depends on chance, bad input is refused in one line."""

import json
import pickle

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flax_transformer.data.sentence_pair import SentencePair
from flax_transformer.data.sentencepiece_model import Tokenizer
from flax_transformer.data.tokenizer import (
    TokenizerConfig,
    TranslationTokenizer,
    train_text_tokenizer,
    train_tokenizer,
)
from flax_transformer.errors import InputError

SYLLABLES = ["ca", "sa", "ga", "to", "li", "vro", "me", "pe", "que", "no", "de", "ve", "lha"]
_WORD_RNG = np.random.default_rng(11)
WORDS = ["".join(_WORD_RNG.choice(SYLLABLES, 1 + n % 4)) for n in range(80)]


def make_pairs(count, seed=0):
    rng = np.random.default_rng(seed)
    return [
        SentencePair(" ".join(rng.choice(WORDS, 4)), "o " + " ".join(rng.choice(WORDS, 5)) + ".")
        for _ in range(count)
    ]


PAIRS = make_pairs(200)
CONFIG = TokenizerConfig(vocab_size=310, subword_regularization=0.3)
TOKENIZER = train_tokenizer(CONFIG, PAIRS, seed=3).source
BPE = train_tokenizer(TokenizerConfig(vocab_size=310, algorithm="bpe"), PAIRS, seed=3).source

# Every character that UTF-8 can express: all but the surrogates.
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@pytest.mark.parametrize("tokenizer", [TOKENIZER, BPE], ids=["unigram", "bpe"])
@given(text=texts | st.text(" \u2581ao\n\0", max_size=12))
@example(text="")
@example(text="  two  spaces  ")
@example(text="\0 nul \x07 bell \u202e bidi \u2028 line")
@example(text="👩\u200d👩\u200d👧 e\u0301 \ufb01 \U0010ffff\u2581")
@example(text="</s> <s> <pad> <unk> <0x41>")
def test_any_text_comes_back(tokenizer, text):
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert not {tokenizer.pad_id, tokenizer.bos_id, tokenizer.eos_id, tokenizer.unk_id} & set(ids)
    assert all(0 <= token_id < tokenizer.vocab_size for token_id in ids)


@given(text=texts | st.lists(st.sampled_from([*WORDS, ""])).map(" ".join), seed=st.integers(0, 99))
def test_sampled_segmentations_are_of_the_same_text(text, seed):
    assert TOKENIZER.decode(TOKENIZER.sample(text, np.random.default_rng(seed))) == text


@given(st.lists(texts, max_size=4))
def test_a_batch_is_encoded_as_its_texts(batch):
    assert TOKENIZER.encode_batch(batch) == [TOKENIZER.encode(text) for text in batch]


def test_lone_surrogates_are_replaced():
    assert TOKENIZER.decode(TOKENIZER.encode("a\ud800b\udfff")) == "a\ufffdb\ufffd"


def test_special_tokens_have_their_places_and_no_text():
    special = [TOKENIZER.pad_id, TOKENIZER.bos_id, TOKENIZER.eos_id, TOKENIZER.unk_id]
    assert special == [0, 1, 2, 3]
    ids = TOKENIZER.encode("casa nova")
    assert TOKENIZER.decode([1, *ids, 2, 0, 0, 3]) == "casa nova"


def test_ids_outside_the_vocabulary_are_refused():
    for outside in (TOKENIZER.vocab_size, -1):
        with pytest.raises(InputError, match=f"ids must be from 0 to 309, got {outside}"):
            TOKENIZER.decode([5, outside])


def test_sampling_depends_on_the_generator_alone():
    text = " ".join(WORDS)
    draws = [TOKENIZER.sample(text, np.random.default_rng(seed)) for seed in range(20)]
    again = pickle.loads(pickle.dumps(TOKENIZER))
    assert draws == [again.sample(text, np.random.default_rng(seed)) for seed in range(20)]
    assert len({tuple(draw) for draw in draws}) > 10


def test_a_large_alpha_leaves_the_best_segmentation_alone():
    sharp = Tokenizer(TOKENIZER.model, subword_regularization=1000.0)
    text = " ".join(WORDS)
    assert sharp.sample(text, np.random.default_rng(0)) == sharp.encode(text)


def test_sampling_follows_the_probabilities_of_the_model():
    word = max(WORDS, key=len)
    # A word's segmentations and their scores, by SentencePiece itself.
    nbest = TOKENIZER._processor.nbest_encode(word, nbest_size=64, return_type="proto").nbests
    weights = np.exp(0.3 * np.array([candidate.score for candidate in nbest]))
    expected = {
        tuple(piece.id for piece in candidate.pieces): weight
        for candidate, weight in zip(nbest, weights / weights.sum(), strict=True)
    }
    rng = np.random.default_rng(7)
    drawn = [tuple(TOKENIZER.sample(word, rng)) for _ in range(4000)]
    for segmentation, probability in expected.items():
        assert drawn.count(segmentation) / 4000 == pytest.approx(probability, abs=0.03)


def test_bpe_has_nothing_to_sample_from():
    with pytest.raises(InputError, match="subword_regularization must be 0 with algorithm 'bpe'"):
        TokenizerConfig(algorithm="bpe", subword_regularization=0.1)
    with pytest.raises(InputError, match="got a 'bpe' tokenizer"):
        BPE.sample("casa", np.random.default_rng(0))


def test_training_again_gives_the_same_bytes():
    config = TokenizerConfig(vocab_size=300, sample_size=50)
    once = train_tokenizer(config, PAIRS, seed=5)
    assert train_tokenizer(config, PAIRS, seed=5) == once
    assert train_tokenizer(config, PAIRS, seed=6) != once


def test_long_texts_are_trained_on_as_short_ones_are():
    config = TokenizerConfig(vocab_size=266)
    words = ["abab baba aabb"] * 700
    short = train_text_tokenizer(config, words, seed=0).source
    long = train_text_tokenizer(config, [" ".join(words), "xyx"], seed=0).source
    assert len(long.encode("abab baba")) == len(short.encode("abab baba")) < 8


def test_line_breaks_of_the_training_text_get_tokens():
    documents = [f"{pair.source}\n{pair.target}" for pair in PAIRS]
    config = TokenizerConfig(vocab_size=310)
    whole = train_text_tokenizer(config, documents, seed=0).source
    lines = [line for document in documents for line in document.split("\n")]
    cut = train_text_tokenizer(config, lines, seed=0).source
    num_special, num_bytes = 4, 256
    line_feed = num_special + ord("\n")
    assert all(line_feed in ids for ids in cut.encode_batch(documents))
    for ids in whole.encode_batch(documents):
        assert not set(ids) & set(range(num_special, num_special + num_bytes))


def test_separate_vocabularies_are_of_their_own_language():
    pairs = [SentencePair("abab baba", "xyxy yxyx"), SentencePair("aabb", "yyxx")] * 20
    tokenizer = train_tokenizer(TokenizerConfig(vocab_size=266, shared=False), pairs, seed=0)
    assert not tokenizer.shared
    assert len(tokenizer.source.encode("abab")) < len(tokenizer.target.encode("abab"))


@pytest.mark.parametrize("algorithm", ["unigram", "bpe"])
def test_a_vocabulary_too_large_names_the_largest(algorithm):
    with pytest.raises(InputError, match=r"vocab_size must be at most \d+ .* got 5000") as caught:
        train_tokenizer(TokenizerConfig(vocab_size=5000, algorithm=algorithm), PAIRS, seed=0)
    largest = int(str(caught.value).split("at most ")[1].split()[0])
    config = TokenizerConfig(vocab_size=largest, algorithm=algorithm)
    assert train_tokenizer(config, PAIRS, seed=0).source.vocab_size == largest


def test_a_vocabulary_too_small_names_the_smallest():
    with pytest.raises(InputError, match=r"vocab_size must be at least 2\d\d .* got 100"):
        train_tokenizer(TokenizerConfig(vocab_size=100), PAIRS, seed=0)


@pytest.mark.parametrize("pairs", [[], [SentencePair("", " ")] * 3])
def test_no_text_is_refused(pairs):
    with pytest.raises(InputError, match="must be some source and target text"):
        train_tokenizer(TokenizerConfig(), pairs, seed=0)


@pytest.mark.parametrize(
    "bad",
    [
        {"vocab_size": 0},
        {"sample_size": 0},
        {"algorithm": "word"},
        {"character_coverage": 0.0},
        {"character_coverage": 1.5},
        {"subword_regularization": -0.1},
        {"subword_regularization": float("nan")},
    ],
)
def test_configs_that_cannot_work_are_refused(bad):
    with pytest.raises(InputError, match=f"{next(iter(bad))} must"):
        TokenizerConfig(**bad)


@pytest.mark.parametrize("shared", [True, False])
def test_saved_tokenizers_load_equal(tmp_path, shared):
    config = TokenizerConfig(vocab_size=300, shared=shared, subword_regularization=0.2)
    tokenizer = train_tokenizer(config, PAIRS, seed=0)
    tokenizer.save(tmp_path / "tokenizer")
    loaded = TranslationTokenizer.load(tmp_path / "tokenizer")
    assert loaded == tokenizer
    assert loaded.shared == shared
    assert loaded.source.subword_regularization == 0.2
    models = {"shared.model"} if shared else {"source.model", "target.model"}
    assert {path.name for path in (tmp_path / "tokenizer").iterdir()} == models | {"tokenizer.json"}


def damage_flip(content):
    return content[:100] + bytes([content[100] ^ 1]) + content[101:]


@pytest.mark.parametrize(
    "damage",
    [damage_flip, lambda content: content[:-7], lambda content: b"", lambda content: b"garbage"],
    ids=["flipped bit", "cut", "empty", "garbage"],
)
@pytest.mark.parametrize("name", ["shared.model", "tokenizer.json"])
def test_damaged_files_are_named(tmp_path, name, damage):
    TranslationTokenizer(TOKENIZER, TOKENIZER).save(tmp_path)
    path = tmp_path / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError) as caught:
        TranslationTokenizer.load(tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["shared.model", "tokenizer.json"])
def test_missing_files_are_named(tmp_path, name):
    TranslationTokenizer(TOKENIZER, TOKENIZER).save(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=f"{name} must be a readable file"):
        TranslationTokenizer.load(tmp_path)


@pytest.mark.parametrize("description", [[], {"source": 3}, {"shared": {}}, {"other": {}}, "x"])
def test_descriptions_of_something_else_are_refused(tmp_path, description):
    TranslationTokenizer(TOKENIZER, TOKENIZER).save(tmp_path)
    (tmp_path / "tokenizer.json").write_text(json.dumps(description))
    with pytest.raises(InputError, match=r"tokenizer\.json must describe a tokenizer"):
        TranslationTokenizer.load(tmp_path)


@pytest.mark.parametrize("model", [b"", b"garbage", TOKENIZER.model[:50]])
def test_bytes_that_are_no_model_are_refused(model):
    with pytest.raises(InputError, match="model must be a SentencePiece model"):
        Tokenizer(model)
