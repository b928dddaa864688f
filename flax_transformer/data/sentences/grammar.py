"""Sentences of the grammar: English and Portuguese, made together from one derivation."""

from typing import NamedTuple

from flax_transformer.data.sentences import lexicon
from flax_transformer.data.sentences.clauses import (
    ESTAR,
    IR,
    SER,
    Text,
    be,
    copula,
    predicate,
)
from flax_transformer.data.sentences.lexicon import Adjective, Noun, Time, Verb
from flax_transformer.data.sentences.phrases import (
    DEMONSTRATIVES,
    NUMERALS,
    POSSESSIVES,
    POSSESSIVES_PLURAL,
    THE,
    THE_PLURAL,
    A,
    Combination,
    Dice,
    NounPhrase,
    matching_adjectives,
    noun_phrase,
    object_phrase,
    some_adjective,
    subject_phrase,
)
from flax_transformer.data.sentences.portuguese import agree, contract

_NO_TIME = Time("", "")
_OWNED = (*POSSESSIVES, *POSSESSIVES_PLURAL)
_NOUNS = (*lexicon.OBJECTS, *lexicon.SUBSTANCES, *lexicon.PEOPLE, *lexicon.RELATIVES)
_OBJECTS_OF: dict[str, list[Noun]] = {
    verb.english: [noun for noun in _NOUNS if noun.kinds & verb.objects] for verb in lexicon.ACTIONS
}
_THINGS = [noun for noun in lexicon.OBJECTS if noun.kinds & {"thing", "animal"}]
_DESCRIBED = [noun for noun in (*lexicon.OBJECTS, *lexicon.SUBSTANCES) if matching_adjectives(noun)]
_GO = lexicon.Verb("go", "went", "going", IR, frozenset(), lexicon.ALL_TENSES, "a")


class Sentence(NamedTuple):
    """A sentence in both languages, and the combinations of words that it brings together."""

    english: str
    portuguese: str
    combinations: frozenset[Combination]


def random_sentence(dice: Dice) -> Sentence:
    """Generate one sentence; a verb's objects, places and adjectives make sense together."""
    make = dice.pick(
        (
            *(_action,) * 8,
            *(_location,) * 4,
            *(_existence,) * 2,
            *(_quality,) * 3,
            *(_activity,) * 4,
            *(_journey,) * 2,
            _state,
        )
    )
    return make(dice)


def _sentence(combinations: frozenset[Combination], *pieces: Text | NounPhrase | Time) -> Sentence:
    english = " ".join(piece.english for piece in pieces if piece.english)
    portuguese = " ".join(piece.portuguese for piece in pieces if piece.portuguese)
    return Sentence(_capitalize(english) + ".", _capitalize(portuguese) + ".", combinations)


def _capitalize(text: str) -> str:
    return text[0].upper() + text[1:]


def _action(dice: Dice) -> Sentence:
    """Somebody does something to an object: "My aunt bought two red hats yesterday."."""
    subject = subject_phrase(dice)
    verb = dice.pick(lexicon.ACTIONS)
    noun = dice.pick([noun for noun in _OBJECTS_OF[verb.english] if noun.english != subject.head])
    thing = object_phrase(dice, noun, verb.preposition)
    tense = dice.pick(verb.tenses)
    text = Text(thing.english, thing.after(verb.preposition))
    combinations = {(verb.english, noun.english)} | subject.combinations | thing.combinations
    return _sentence(
        frozenset(combinations),
        subject,
        predicate(subject, verb, tense, denied=dice.happens(0.15)),
        text,
        dice.pick(lexicon.TIMES[tense]),
    )


def _location(dice: Dice) -> Sentence:
    """A thing is somewhere: "The book is on the table."."""
    noun = dice.pick(_THINGS)
    determiner = dice.pick((THE, THE, THE, THE_PLURAL, dice.pick(_OWNED)))
    thing = noun_phrase(determiner, noun, some_adjective(dice, noun, probability=0.3))
    place, combinations = _random_place(dice, noun)
    is_there = copula(thing, ESTAR, dice.pick(("present", "present", "past")), dice.happens(0.15))
    return _sentence(thing.combinations | combinations, thing, is_there, place)


def example_sentence() -> Sentence:
    """Generate the sentence that everybody tries first.

    >>> example_sentence()[:2]
    ('The book is on the table.', 'O livro está em cima da mesa.')
    """
    book, table = (
        next(noun for noun in lexicon.OBJECTS if noun.english == word) for word in ("book", "table")
    )
    thing = noun_phrase(THE, book, None)
    place, combinations = _place_of_thing(book, "on", table, None)
    return _sentence(combinations, thing, copula(thing, ESTAR, "present", denied=False), place)


def _random_place(dice: Dice, noun: Noun) -> tuple[Text, frozenset[Combination]]:
    """Choose where a thing is: "under the white table"."""
    landmark, relations = dice.pick(
        [entry for entry in lexicon.LANDMARKS if entry[0].english != noun.english]
    )
    adjective = some_adjective(dice, landmark, probability=0.15)
    return _place_of_thing(noun, dice.pick(sorted(relations)), landmark, adjective)


def _place_of_thing(
    noun: Noun, relation: str, landmark: Noun, adjective: Adjective | None
) -> tuple[Text, frozenset[Combination]]:
    """Say where a thing is, relative to a landmark."""
    english, portuguese = lexicon.RELATIONS[relation]
    phrase = noun_phrase(THE, landmark, adjective)
    text = Text(f"{english} {phrase.english}", phrase.after(portuguese))
    return text, phrase.combinations | {(noun.english, f"{relation} {landmark.english}")}


def _existence(dice: Dice) -> Sentence:
    """There is something somewhere: "There are three cups on the shelf."."""
    noun = dice.pick(_THINGS)
    determiner = dice.pick((A, A, *NUMERALS))
    thing = noun_phrase(determiner, noun, some_adjective(dice, noun, probability=0.3))
    place, combinations = _random_place(dice, noun)
    tense = dice.pick(("present", "past"))
    there = Text(f"there {be(thing, tense)}", "há" if tense == "present" else "havia")
    return _sentence(thing.combinations | combinations, there, thing, place)


def _quality(dice: Dice) -> Sentence:
    """A thing has a quality: "Those cups were dirty."; Portuguese tells *ser* from *estar*."""
    noun = dice.pick(_DESCRIBED)
    adjective = dice.pick(matching_adjectives(noun))
    countable = (THE, THE_PLURAL, dice.pick(DEMONSTRATIVES), dice.pick(_OWNED))
    determiner = THE if noun in lexicon.SUBSTANCES else dice.pick(countable)
    thing = noun_phrase(determiner, noun, None)
    verb = ESTAR if adjective.passing else SER
    is_so = copula(thing, verb, dice.pick(("present", "past")), dice.happens(0.15))
    quality = Text(adjective.english, agree(adjective.portuguese, noun.gender, thing.plural))
    return _sentence(frozenset({(adjective.english, noun.english)}), thing, is_so, quality)


def _activity(dice: Dice) -> Sentence:
    """Somebody does something somewhere: "The children are playing in the garden."."""
    subject = subject_phrase(dice)
    verb: Verb = dice.pick(lexicon.ACTIVITIES)
    place = lexicon.PLACES[dice.pick(sorted(verb.objects))]
    tense = dice.pick(verb.tenses)
    where = Text(
        _with_article(place.preposition, place.english),
        f"{contract('em', _article(place.gender))} {place.portuguese}",
    )
    return _sentence(
        subject.combinations | {(verb.english, place.english)},
        subject,
        predicate(subject, verb, tense, denied=dice.happens(0.15)),
        where,
        dice.pick(lexicon.TIMES[tense]),
    )


def _journey(dice: Dice) -> Sentence:
    """Somebody goes somewhere: "We went to the beach last week."."""
    subject = subject_phrase(dice)
    place = dice.pick(lexicon.DESTINATIONS)
    tense = dice.pick(("habit", "past", "future"))
    denied = dice.happens(0.15)
    goes = predicate(subject, _GO, tense, denied)
    time = dice.pick(lexicon.TIMES[tense])
    if tense == "future":
        # "Vai ir" is avoided: the present of "ir", with a time to come, is the future.
        goes = Text(goes.english, predicate(subject, _GO, "present", denied).portuguese)
        time = dice.pick(lexicon.TIMES[tense][1:])
    where = Text(
        _with_article("to", place.english),
        f"{contract('a', _article(place.gender))} {place.portuguese}",
    )
    combinations = subject.combinations | {(subject.head, f"to {place.english}")}
    return _sentence(combinations, subject, goes, where, time)


def _state(dice: Dice) -> Sentence:
    """Somebody is in a state: "My sisters will be busy tomorrow."."""
    subject = subject_phrase(dice)
    states = [
        state
        for state in lexicon.STATES
        # "I am tired" is "cansado" or "cansada": only words without gender go with "I" and "we".
        if subject.gender or not state.portuguese.endswith("o")
    ]
    state = dice.pick(states)
    tense = dice.pick(("present", "past", "future"))
    is_so = copula(subject, ESTAR, tense, dice.happens(0.15))
    quality = Text(state.english, agree(state.portuguese, subject.gender or "m", subject.plural))
    time = _NO_TIME if tense == "present" else dice.pick(lexicon.TIMES[tense])
    combinations = subject.combinations | {(subject.head, state.english)}
    return _sentence(combinations, subject, is_so, quality, time)


def _with_article(preposition: str, place: str) -> str:
    """Put an English preposition before a place; "school" and "church" go without an article."""
    article = "" if place in ("school", "church") else "the "
    return f"{preposition} {article}{place}"


def _article(gender: str) -> str:
    return "a" if gender == "f" else "o"
