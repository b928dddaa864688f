from collections import Counter

import pytest

from flax_transformer.data.sentences import lexicon
from flax_transformer.data.sentences.corpus import (
    SIZES,
    generate_corpus,
    split_of_combination,
    words_of,
)
from flax_transformer.data.sentences.grammar import Sentence, random_sentence
from flax_transformer.data.sentences.phrases import Dice
from flax_transformer.data.sentences.portuguese import agree, conjugate, contract

Corpus = dict[str, list[Sentence]]


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return dict(generate_corpus())


def test_the_splits_have_their_sizes(corpus: Corpus) -> None:
    assert {split: len(sentences) for split, sentences in corpus.items()} == dict(SIZES)
    assert SIZES["train"] >= 10_000


def test_no_sentence_occurs_twice_on_either_side(corpus: Corpus) -> None:
    sentences = [sentence for split in corpus.values() for sentence in split]
    assert len({sentence.english for sentence in sentences}) == len(sentences)
    assert len({sentence.portuguese for sentence in sentences}) == len(sentences)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_held_out_sentences_have_a_combination_that_training_has_not(
    corpus: Corpus, split: str
) -> None:
    trained = {pair for sentence in corpus["train"] for pair in sentence.combinations}
    assert all(sentence.combinations - trained for sentence in corpus[split])
    held_out = {pair for sentence in corpus[split] for pair in sentence.combinations - trained}
    assert len(held_out) > 100


@pytest.mark.parametrize("split", ["validation", "test"])
@pytest.mark.parametrize("language", ["english", "portuguese"])
def test_training_has_every_held_out_word(corpus: Corpus, split: str, language: str) -> None:
    counts = Counter(
        word for sentence in corpus["train"] for word in words_of(getattr(sentence, language))
    )
    words = {word for sentence in corpus[split] for word in words_of(getattr(sentence, language))}
    assert min(counts[word] for word in words) >= 3


def test_generation_is_deterministic() -> None:
    sizes = {"train": 500, "validation": 7, "test": 5}
    assert generate_corpus(sizes) == generate_corpus(sizes)


def test_an_english_sentence_has_one_translation() -> None:
    dice = Dice(seed=3)
    translations: dict[str, str] = {}
    for _ in range(30_000):
        sentence = random_sentence(dice)
        assert translations.setdefault(sentence.english, sentence.portuguese) == sentence.portuguese


def test_sentences_are_written_as_sentences() -> None:
    dice = Dice(seed=5)
    for _ in range(5_000):
        for text in random_sentence(dice)[:2]:
            assert text == " ".join(text.split())
            assert text[0].isupper()
            assert text.endswith(".")


def test_the_first_sentence_is_the_one_that_everybody_tries(corpus: Corpus) -> None:
    pairs = {sentence.english: sentence.portuguese for sentence in corpus["train"]}
    assert pairs["The book is on the table."] == "O livro está em cima da mesa."


def test_combinations_are_held_out_in_all_relations() -> None:
    splits = Counter(
        split_of_combination((adjective.english, noun.english))
        for adjective in lexicon.ADJECTIVES
        for noun in lexicon.OBJECTS
    )
    assert 0.03 < splits["test"] / splits.total() < 0.1
    assert 0.03 < splits["validation"] / splits.total() < 0.1


def test_words_of_the_lexicon_have_one_translation_each() -> None:
    nouns = (*lexicon.OBJECTS, *lexicon.SUBSTANCES, *lexicon.PEOPLE, *lexicon.RELATIVES)
    assert len({noun.english for noun in nouns}) == len({noun.portuguese for noun in nouns})
    verbs = (*lexicon.ACTIONS, *lexicon.ACTIVITIES)
    assert len({verb.english for verb in verbs}) == len({verb.portuguese[0] for verb in verbs})


def test_every_word_of_the_lexicon_is_used(corpus: Corpus) -> None:
    used = {word for sentence in corpus["train"] for word in words_of(sentence.portuguese)}
    nouns = (*lexicon.OBJECTS, *lexicon.SUBSTANCES, *lexicon.PEOPLE, *lexicon.RELATIVES)
    assert {noun.portuguese for noun in nouns} <= used
    assert {verb.portuguese.infinitive for verb in lexicon.ACTIVITIES} <= used


@pytest.mark.parametrize(
    ("infinitive", "present", "past", "gerund"),
    [
        (
            "comprar",
            "compro compra compramos compram",
            "comprei comprou compramos compraram",
            "ando",
        ),
        ("carregar", "carrego carrega carregamos carregam", "carreguei carregou", "ando"),
        ("dançar", "danço dança dançamos dançam", "dancei dançou", "ando"),
        ("esquecer", "esqueço esquece esquecemos esquecem", "esqueci esqueceu", "endo"),
        ("abrir", "abro abre abrimos abrem", "abri abriu abrimos abriram", "indo"),
        ("ler", "leio lê lemos leem", "li leu lemos leram", "endo"),
        ("ver", "vejo vê vemos veem", "vi viu vimos viram", "endo"),
        ("dormir", "durmo dorme dormimos dormem", "dormi dormiu dormimos dormiram", "indo"),
        ("trazer", "trago traz trazemos trazem", "trouxe trouxe trouxemos trouxeram", "endo"),
    ],
)
def test_conjugation(infinitive: str, present: str, past: str, gerund: str) -> None:
    verb = conjugate(infinitive)
    assert list(verb.present.values()) == present.split()
    assert list(verb.past.values())[: len(past.split())] == past.split()
    assert verb.gerund == infinitive[:-2] + gerund


def test_agreement_and_contraction() -> None:
    assert [agree("branco", gender, plural) for gender in "mf" for plural in (False, True)] == [
        "branco",
        "brancos",
        "branca",
        "brancas",
    ]
    assert agree("azul", "f", plural=True) == "azuis"
    assert agree("jovem", "f", plural=True) == "jovens"
    assert agree("feliz", "m", plural=True) == "felizes"
    assert contract("perto de", "as") == "perto das"
    assert contract("a", "a") == "à"
    assert contract("de", "aquele") == "daquele"
    assert contract("de", "uma") == "de uma"
