"""Noun phrases of the sentence grammar: determiner, noun and adjective in agreement."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from flax_transformer.data.sentences import lexicon
from flax_transformer.data.sentences.english import indefinite_article
from flax_transformer.data.sentences.lexicon import Adjective, Noun, Subject
from flax_transformer.data.sentences.portuguese import Gender, Person, agree, contract

Item = TypeVar("Item")

#: Two words (or a word and a relation) that a sentence brings together, as dictionary forms.
Combination = tuple[str, str]


class Dice:
    """Seeded choices, the same in every Python version (only ``random()`` is promised stable)."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def pick(self, items: Sequence[Item]) -> Item:
        """Return one of ``items``, all equally likely."""
        return items[int(self._random.random() * len(items))]

    def happens(self, probability: float) -> bool:
        """Return True with the given probability."""
        return self._random.random() < probability


class Determiner(NamedTuple):
    """What stands before a noun; Portuguese agrees in gender ("" for no determiner)."""

    english: str
    masculine: str
    feminine: str
    plural: bool = False


@dataclass(frozen=True, kw_only=True)
class NounPhrase:
    """A noun phrase in both languages, with what the words around it must agree with.

    ``determiner`` is kept apart from the rest of the Portuguese phrase, because prepositions
    contract with it.
    """

    english: str
    determiner: str
    rest: str
    person: Person
    gender: Gender | None
    plural: bool
    head: str
    combinations: frozenset[Combination] = frozenset()

    @property
    def portuguese(self) -> str:
        """The Portuguese phrase without a preposition."""
        return f"{self.determiner} {self.rest}".strip()

    def after(self, preposition: str) -> str:
        """Put a Portuguese preposition before the phrase ("" for none)."""
        if not preposition:
            return self.portuguese
        return f"{contract(preposition, self.determiner)} {self.rest}"


THE = Determiner("the", "o", "a")
THE_PLURAL = Determiner("the", "os", "as", plural=True)
A = Determiner("a", "um", "uma")
BARE = Determiner("", "", "")
DEMONSTRATIVES = (
    Determiner("this", "este", "esta"),
    Determiner("that", "aquele", "aquela"),
    Determiner("these", "estes", "estas", plural=True),
    Determiner("those", "aqueles", "aquelas", plural=True),
)
POSSESSIVES = (
    Determiner("my", "meu", "minha"),
    Determiner("our", "nosso", "nossa"),
)
POSSESSIVES_PLURAL = (
    Determiner("my", "meus", "minhas", plural=True),
    Determiner("our", "nossos", "nossas", plural=True),
)
NUMERALS = (
    Determiner("two", "dois", "duas", plural=True),
    Determiner("three", "três", "três", plural=True),
    Determiner("some", "alguns", "algumas", plural=True),
)


def noun_phrase(determiner: Determiner, noun: Noun, adjective: Adjective | None) -> NounPhrase:
    """Compose a noun phrase; the adjective stands before the noun in English, after in Portuguese.

    >>> red = lexicon.ADJECTIVES[0]
    >>> phrase = noun_phrase(NUMERALS[0], lexicon.OBJECTS[6], red)
    >>> phrase.english, phrase.portuguese
    ('two red oranges', 'duas laranjas vermelhas')
    """
    plural = determiner.plural
    english = [noun.english_plural if plural else noun.english]
    portuguese = [noun.portuguese_plural if plural else noun.portuguese]
    if adjective:
        english.insert(0, adjective.english)
        portuguese.append(agree(adjective.portuguese, noun.gender, plural))
    article = indefinite_article(english[0]) if determiner is A else determiner.english
    return NounPhrase(
        english=" ".join([article, *english]).strip(),
        determiner=determiner.feminine if noun.gender == "f" else determiner.masculine,
        rest=" ".join(portuguese),
        person="eles" if plural else "ele",
        gender=noun.gender,
        plural=plural,
        head=noun.english,
        combinations=frozenset({(adjective.english, noun.english)} if adjective else ()),
    )


def matching_adjectives(noun: Noun, passing: bool | None = None) -> list[Adjective]:
    """List the adjectives that make sense with ``noun`` (only *estar* or *ser* ones if asked)."""
    adjectives = (*lexicon.ADJECTIVES, *lexicon.PERSON_ADJECTIVES)
    return [
        adjective
        for adjective in adjectives
        if adjective.kinds & noun.kinds and passing in (None, adjective.passing)
    ]


def some_adjective(dice: Dice, noun: Noun, probability: float) -> Adjective | None:
    """Choose an adjective that makes sense with ``noun``, or none."""
    choices = matching_adjectives(noun)
    return dice.pick(choices) if choices and dice.happens(probability) else None


def object_phrase(dice: Dice, noun: Noun, preposition: str) -> NounPhrase:
    """Make the object of a verb whose Portuguese translation takes ``preposition``."""
    adjective = some_adjective(dice, noun, probability=0.4)
    if noun in lexicon.SUBSTANCES:
        return noun_phrase(BARE if dice.happens(0.6) else THE, noun, adjective)
    if noun in lexicon.RELATIVES:
        return noun_phrase(dice.pick(POSSESSIVES), noun, None)
    kinds = [THE, THE, THE_PLURAL, A, A, dice.pick(DEMONSTRATIVES), dice.pick(NUMERALS)]
    # Behind a preposition use wavers between "de meu" and "do meu", so neither is generated.
    if not preposition:
        kinds.append(dice.pick((*POSSESSIVES, *POSSESSIVES_PLURAL)))
    return noun_phrase(dice.pick(kinds), noun, adjective)


def subject_phrase(dice: Dice) -> NounPhrase:
    """Make a person who does something: a pronoun, a name, a relative or somebody else."""
    kind = dice.pick(("pronoun", "pronoun", "pronoun", "name", "relative", "person"))
    if kind == "pronoun":
        # "I" counts twice: Portuguese has forms of the verb for it alone.
        return _from_subject(dice.pick((lexicon.PRONOUNS[0], *lexicon.PRONOUNS)))
    if kind == "name":
        return _from_subject(dice.pick(lexicon.NAMES))
    if kind == "relative":
        noun = dice.pick(lexicon.RELATIVES)
        return noun_phrase(dice.pick(POSSESSIVES), noun, None)
    noun = dice.pick(lexicon.PEOPLE)
    determiner = dice.pick((THE, THE, THE_PLURAL, dice.pick(DEMONSTRATIVES)))
    return noun_phrase(determiner, noun, some_adjective(dice, noun, probability=0.2))


def _from_subject(subject: Subject) -> NounPhrase:
    return NounPhrase(
        english=subject.english,
        determiner="",
        rest=subject.portuguese,
        person=subject.person,
        gender=subject.gender,
        plural=subject.person in ("nós", "eles"),
        head=subject.english,
    )
