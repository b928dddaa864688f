"""Pairs that cannot be read or used end the training data with their index, and without delay."""

import time
from itertools import islice

import pytest
from tiny_corpus import PAIRS, RANDOM_TOKENIZER, TOKENIZER, make_batches, make_config

from flax_transformer.data.corpus import spread_evenly
from flax_transformer.data.sentence_pair import SentencePair
from flax_transformer.data.sentencepiece_model import Tokenizer
from flax_transformer.data.tokenizer import TranslationTokenizer
from flax_transformer.errors import InputError

batchings = pytest.mark.parametrize("batching", ["packed", "bucketed"])
DAMAGED = [
    (OSError("record is\ndamaged"), "pairs must be readable, got OSError at index 5: record is d"),
    (RuntimeError(), "pairs must be readable, got RuntimeError at index 5: RuntimeError"),
    (None, "pairs must be pairs of texts, got None at index 5"),
    (("a", "b"), r"pairs must be pairs of texts, got \('a', 'b'\) at index 5"),
    (SentencePair("a", b"b"), "must be pairs of texts, got .* at index 5"),
]


class DamagedPairs(list):
    """Pairs of which number 5 is damaged, from the moment it is."""

    damage: object = PAIRS[5]

    def __getitem__(self, index):
        if index != 5:
            return super().__getitem__(index)
        if isinstance(self.damage, Exception):
            raise self.damage
        return self.damage


def assert_ends_soon(batches, match):
    """The error comes out of the background threads, in one line, and soon."""
    start = time.monotonic()
    with pytest.raises(InputError, match=match) as caught:
        list(islice(batches, 1000))
    assert time.monotonic() - start < 10
    assert "\n" not in str(caught.value)


@batchings
@pytest.mark.parametrize(("damage", "match"), DAMAGED)
def test_a_pair_that_is_damaged_later_ends_the_iteration(batching, damage, match):
    pairs = DamagedPairs(PAIRS)
    batches = make_batches(batching, pairs=pairs)
    pairs.damage = damage
    assert_ends_soon(batches, match)


@pytest.mark.parametrize(("damage", "match"), DAMAGED)
def test_a_pair_that_is_damaged_is_found_at_the_start(damage, match):
    pairs = DamagedPairs(PAIRS)
    pairs.damage = damage
    with pytest.raises(InputError, match=match):
        make_batches("packed", pairs=pairs)


class FailingTokenizer(Tokenizer):
    """Fails on one pair, once it is armed."""

    armed = False

    def encode_batch(self, texts):
        if self.armed and PAIRS[7].source in texts:
            raise RuntimeError("broken\nmodel")
        return super().encode_batch(texts)


@batchings
def test_an_error_of_the_tokenizer_names_the_pair(batching):
    failing = FailingTokenizer(TOKENIZER.source.model)
    batches = make_batches(batching, tokenizer=TranslationTokenizer(failing, TOKENIZER.target))
    object.__setattr__(failing, "armed", True)
    assert_ends_soon(batches, "can segment, got RuntimeError at index 7: broken model")


@batchings
def test_a_stream_without_usable_pairs_ends_with_counts(batching):
    # The best segmentation just fits, but one at random never does.
    text = max((pair.source for pair in PAIRS), key=len)
    length = len(TOKENIZER.source.encode(text)) + 1
    uniform = Tokenizer(RANDOM_TOKENIZER.source.model, subword_regularization=1e-6)
    batches = make_batches(
        batching,
        pairs=[SentencePair(text, text)],
        tokenizer=TranslationTokenizer(uniform, uniform),
        config=make_config(batching, max_length=length),
    )
    with pytest.raises(InputError, match=r"got none in 102 windows of 1\. Raise max_length"):
        next(batches)


def test_samples_are_spread_from_the_first_to_the_last():
    for count in (1, 2, 7, 61, 100):
        sample = spread_evenly(PAIRS, count)
        assert len(sample) == len(set(sample)) == min(count, len(PAIRS))
        assert sample[0] == PAIRS[0]
        assert count == 1 or sample[-1] == PAIRS[-1]
