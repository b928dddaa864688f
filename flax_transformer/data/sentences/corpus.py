"""The corpus of the sentence grammar: training sentences, and held-out combinations of words.

Development and test sentences are not merely left out of training: each contains at least one
combination of words (an adjective and a noun, a verb and its object, a thing and its place, ...)
that no training sentence contains, so that only a model that has learnt to compose translates
them.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from flax_transformer.data.sentences.grammar import Sentence, example_sentence, random_sentence
from flax_transformer.data.sentences.phrases import Combination, Dice

Split = Literal["train", "validation", "test"]

SIZES: Mapping[Split, int] = {"train": 12_000, "validation": 800, "test": 800}
_HELD_OUT_SHARE = 0.06
_MIN_SIGHTINGS = 3
_SEED = 0


def split_of_combination(combination: Combination) -> Split:
    """Assign a combination of words to a split, by its hash.

    >>> split_of_combination(("book", "on table")), split_of_combination(("old", "book"))
    ('train', 'train')
    """
    digest = hashlib.sha256(" / ".join(combination).encode()).digest()
    fraction = int.from_bytes(digest[:8], "big") / 2**64
    if fraction < _HELD_OUT_SHARE:
        return "test"
    return "validation" if fraction < 2 * _HELD_OUT_SHARE else "train"


def split_of_sentence(combinations: Iterable[Combination]) -> Split | None:
    """Return the split of a sentence by its combinations; None if it mixes both held-out sets."""
    splits = {split_of_combination(combination) for combination in combinations} - {"train"}
    if len(splits) > 1:
        return None
    return splits.pop() if splits else "train"


def generate_corpus(sizes: Mapping[Split, int] = SIZES) -> dict[Split, list[Sentence]]:
    """Generate the three splits, always the same, without a repetition on either side.

    A held-out sentence is kept only when training shows each of its words in several sentences: it
    tests new combinations of known words.

    >>> corpus = generate_corpus({"train": 900, "validation": 3, "test": 2})
    >>> [len(sentences) for sentences in corpus.values()]
    [900, 3, 2]
    """
    dice = Dice(_SEED)
    train = _collect(_endless(dice), sizes["train"], "train", seen=set())
    seen = {text for sentence in train for text in (sentence.english, sentence.portuguese)}
    counts = Counter(word for sentence in train for word in _words_of_pair(sentence))
    known = (
        sentence
        for sentence in _endless(dice)
        if all(counts[word] >= _MIN_SIGHTINGS for word in _words_of_pair(sentence))
    )
    return {
        "train": train,
        "validation": _collect(known, sizes["validation"], "validation", seen),
        "test": _collect(known, sizes["test"], "test", seen),
    }


def _endless(dice: Dice) -> Iterator[Sentence]:
    yield example_sentence()
    while True:
        yield random_sentence(dice)


def _collect(
    sentences: Iterator[Sentence], size: int, split: Split, seen: set[str]
) -> list[Sentence]:
    """Take ``size`` sentences of a split, none of whose two sides is in ``seen``; extend it."""
    collected: list[Sentence] = []
    while len(collected) < size:
        sentence = next(sentences)
        if split_of_sentence(sentence.combinations) != split:
            continue
        if sentence.english not in seen and sentence.portuguese not in seen:
            collected.append(sentence)
            seen |= {sentence.english, sentence.portuguese}
    return collected


def _words_of_pair(sentence: Sentence) -> list[str]:
    # English and Portuguese share words ("a", "do"): a mark keeps them apart.
    english = [f"en {word}" for word in words_of(sentence.english)]
    return english + [f"pt {word}" for word in words_of(sentence.portuguese)]


def words_of(sentence: str) -> list[str]:
    """Split a sentence into words, without its full stop and its capital.

    >>> words_of("The book is new.")
    ['the', 'book', 'is', 'new']
    """
    return sentence.removesuffix(".").lower().split()
