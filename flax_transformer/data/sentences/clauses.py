"""Predicates of the sentence grammar: verbs in tense and person, affirmed or denied."""

from typing import NamedTuple

from flax_transformer.data.sentences.english import add_s
from flax_transformer.data.sentences.lexicon import Verb
from flax_transformer.data.sentences.phrases import NounPhrase
from flax_transformer.data.sentences.portuguese import Conjugation, conjugate

ESTAR = conjugate("estar")
SER = conjugate("ser")
IR = conjugate("ir")


class Text(NamedTuple):
    """A piece of a sentence in both languages."""

    english: str
    portuguese: str


def predicate(subject: NounPhrase, verb: Verb, tense: str, denied: bool) -> Text:
    """Put a verb into a tense, in agreement with its subject.

    ``tense`` is "habit" or "present" (simple present), "now" (progressive), "past" or "future"
    (will; in Portuguese *ir* and the infinitive, as in speech).
    """
    forms = verb.portuguese
    if tense == "now":
        english = _join(be(subject, "present"), denied, verb.gerund)
        portuguese = f"{ESTAR.present[subject.person]} {forms.gerund}"
    elif tense == "future":
        english = _join("will", denied, verb.english)
        portuguese = f"{IR.present[subject.person]} {forms.infinitive}"
    elif tense == "past":
        english = _join("did", denied, verb.english) if denied else verb.past
        portuguese = forms.past[subject.person]
    else:
        third = subject.person == "ele"
        english = add_s(verb.english) if third else verb.english
        if denied:
            english = _join("does" if third else "do", denied, verb.english)
        portuguese = forms.present[subject.person]
    return Text(english, _deny(portuguese, denied))


def copula(subject: NounPhrase, verb: Conjugation, tense: str, denied: bool) -> Text:
    """Say that the subject is, was or will be; ``verb`` is *ser* or *estar*."""
    if tense == "future":
        english = _join("will", denied, "be")
        portuguese = f"{IR.present[subject.person]} {verb.infinitive}"
    else:
        english = _join(be(subject, tense), denied, "")
        portuguese = (verb.past if tense == "past" else verb.present)[subject.person]
    return Text(english, _deny(portuguese, denied))


def be(subject: NounPhrase, tense: str) -> str:
    """Return the form of the English verb "be" for the subject, present or past."""
    if tense == "past":
        return "were" if subject.plural else "was"
    if subject.person == "eu":
        return "am"
    return "are" if subject.plural else "is"


def _join(auxiliary: str, denied: bool, rest: str) -> str:
    return " ".join(word for word in (auxiliary, "not" if denied else "", rest) if word)


def _deny(portuguese: str, denied: bool) -> str:
    return f"não {portuguese}" if denied else portuguese
