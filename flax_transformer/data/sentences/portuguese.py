"""Inflection of the Portuguese words of the sentence grammar (Brazilian use)."""

from typing import Literal, NamedTuple

Gender = Literal["m", "f"]
Person = Literal["eu", "ele", "nós", "eles"]

_CONTRACTIONS = {
    ("em", "o"): "no",
    ("em", "a"): "na",
    ("em", "os"): "nos",
    ("em", "as"): "nas",
    ("de", "o"): "do",
    ("de", "a"): "da",
    ("de", "os"): "dos",
    ("de", "as"): "das",
    ("de", "este"): "deste",
    ("de", "esta"): "desta",
    ("de", "estes"): "destes",
    ("de", "estas"): "destas",
    ("de", "aquele"): "daquele",
    ("de", "aquela"): "daquela",
    ("de", "aqueles"): "daqueles",
    ("de", "aquelas"): "daquelas",
    ("a", "o"): "ao",
    ("a", "a"): "à",
}


class Conjugation(NamedTuple):
    """The forms of a verb that the grammar uses."""

    infinitive: str
    gerund: str
    present: dict[Person, str]
    past: dict[Person, str]


def pluralize(word: str) -> str:
    """Form the regular plural of a noun or an adjective.

    >>> [pluralize(word) for word in ("livro", "flor", "jornal", "azul", "homem", "estação")]
    ['livros', 'flores', 'jornais', 'azuis', 'homens', 'estações']
    """
    if word.endswith("ão"):
        return word[:-2] + "ões"
    if word.endswith("l"):
        return word[:-1] + "is"
    if word.endswith("m"):
        return word[:-1] + "ns"
    if word.endswith(("r", "z")):
        return word + "es"
    return word + "s"


def agree(adjective: str, gender: Gender, plural: bool) -> str:
    """Make an adjective, given as masculine singular, agree with its noun.

    >>> agree("vermelho", "f", plural=True), agree("grande", "f", plural=False)
    ('vermelhas', 'grande')
    """
    if gender == "f" and adjective.endswith("o"):
        adjective = adjective[:-1] + "a"
    return pluralize(adjective) if plural else adjective


def contract(preposition: str, determiner: str) -> str:
    """Join a preposition and the determiner behind it, as writing demands.

    Only the last word of ``preposition`` contracts; an empty determiner adds nothing.

    >>> contract("em", "a"), contract("em cima de", "o"), contract("de", "dois")
    ('na', 'em cima do', 'de dois')
    """
    *before, last = preposition.split()
    joined = _CONTRACTIONS.get((last, determiner), f"{last} {determiner}".strip())
    return " ".join([*before, joined])


def conjugate(infinitive: str) -> Conjugation:
    """Conjugate a verb of the lexicon, by the rule of its ending or from the table of exceptions.

    >>> conjugate("brincar").past["eu"], conjugate("comer").present["eles"]
    ('brinquei', 'comem')
    >>> conjugate("trazer").past["ele"], conjugate("perder").present["eu"]
    ('trouxe', 'perco')
    """
    stem, ending = infinitive[:-2], infinitive[-2:]
    endings = _ENDINGS[ending]
    present = [stem + form for form in endings.present]
    past = [stem + form for form in endings.past]
    # The spelling changes where the sound of the stem would: c, g and ç before e; c before o.
    if ending == "ar" and stem[-1] in _BEFORE_E:
        past[0] = stem[:-1] + _BEFORE_E[stem[-1]] + "ei"
    if ending == "er" and stem.endswith("c"):
        present[0] = stem[:-1] + "ço"
    return Conjugation(
        infinitive=infinitive,
        gerund=stem + endings.gerund,
        present=_by_person(_IRREGULAR_PRESENT.get(infinitive, present)),
        past=_by_person(_IRREGULAR_PAST.get(infinitive, past)),
    )


def _by_person(forms: list[str]) -> dict[Person, str]:
    first, third, first_plural, third_plural = forms
    return {"eu": first, "ele": third, "nós": first_plural, "eles": third_plural}


class _Endings(NamedTuple):
    present: tuple[str, str, str, str]
    past: tuple[str, str, str, str]
    gerund: str


_BEFORE_E = {"c": "qu", "g": "gu", "ç": "c"}
_ENDINGS = {
    "ar": _Endings(("o", "a", "amos", "am"), ("ei", "ou", "amos", "aram"), "ando"),
    "er": _Endings(("o", "e", "emos", "em"), ("i", "eu", "emos", "eram"), "endo"),
    "ir": _Endings(("o", "e", "imos", "em"), ("i", "iu", "imos", "iram"), "indo"),
}
_IRREGULAR_PRESENT = {
    "dormir": ["durmo", "dorme", "dormimos", "dormem"],
    "estar": ["estou", "está", "estamos", "estão"],
    "ir": ["vou", "vai", "vamos", "vão"],
    "ler": ["leio", "lê", "lemos", "leem"],
    "perder": ["perco", "perde", "perdemos", "perdem"],
    "querer": ["quero", "quer", "queremos", "querem"],
    "ser": ["sou", "é", "somos", "são"],
    "trazer": ["trago", "traz", "trazemos", "trazem"],
    "ver": ["vejo", "vê", "vemos", "veem"],
}
# The past of a state ("was") is the imperfect, that of an action the preterite.
_IRREGULAR_PAST = {
    "estar": ["estava", "estava", "estávamos", "estavam"],
    "ir": ["fui", "foi", "fomos", "foram"],
    "ser": ["era", "era", "éramos", "eram"],
    "trazer": ["trouxe", "trouxe", "trouxemos", "trouxeram"],
    "ver": ["vi", "viu", "vimos", "viram"],
}
