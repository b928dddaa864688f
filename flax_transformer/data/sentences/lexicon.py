"""The words of the sentence grammar, each with its translation and its use.

A word has exactly one translation, and words stand together only when their kinds say that they
make sense together: one paints chairs and eats apples.
"""

from typing import NamedTuple

from flax_transformer.data.sentences.english import add_ed, add_ing, add_s
from flax_transformer.data.sentences.portuguese import (
    Conjugation,
    Gender,
    Person,
    conjugate,
    pluralize,
)


class Noun(NamedTuple):
    """A noun in both languages; ``kinds`` say with which verbs and adjectives it may stand."""

    english: str
    portuguese: str
    gender: Gender
    kinds: frozenset[str]
    english_plural: str
    portuguese_plural: str


class Adjective(NamedTuple):
    """An adjective (Portuguese in the masculine singular); ``passing`` takes *estar*, not *ser*."""

    english: str
    portuguese: str
    kinds: frozenset[str]
    passing: bool


class Verb(NamedTuple):
    """A verb in both languages.

    ``objects`` are the kinds of noun it takes (of an intransitive verb: the places it happens at)
    and ``tenses`` those in which it sounds natural. ``preposition`` is what Portuguese puts
    before the object.
    """

    english: str
    past: str
    gerund: str
    portuguese: Conjugation
    objects: frozenset[str]
    tenses: tuple[str, ...]
    preposition: str


class Place(NamedTuple):
    """Where persons are and go; ``preposition`` is the English one for being there."""

    english: str
    preposition: str
    portuguese: str
    gender: Gender


class Subject(NamedTuple):
    """A pronoun or a name; ``gender`` is None where the English word does not tell it."""

    english: str
    portuguese: str
    person: Person
    gender: Gender | None


class Time(NamedTuple):
    """An expression of time, at the end of the sentence in both languages."""

    english: str
    portuguese: str


def _noun(entry: str, kinds: str) -> Noun:
    """Parse ``english portuguese gender [english plural [portuguese plural]]``."""
    english, portuguese, gender, *plurals = entry.split()
    return Noun(
        english=english,
        portuguese=portuguese,
        gender="f" if gender == "f" else "m",
        kinds=frozenset(kinds.split()),
        english_plural=plurals[0] if plurals else add_s(english),
        portuguese_plural=plurals[1] if len(plurals) > 1 else pluralize(portuguese),
    )


def _nouns(kinds: str, entries: str) -> list[Noun]:
    return [_noun(entry.strip(), kinds) for entry in entries.split(",")]


OBJECTS: tuple[Noun, ...] = (
    *_nouns("thing paper text", "book livro m, letter carta f"),
    *_nouns("thing paper", "newspaper jornal m, magazine revista f, notebook caderno m"),
    *_nouns("thing food", "apple maçã f, orange laranja f, cake bolo m, egg ovo m"),
    *_nouns("thing food", "banana banana f, sandwich sanduíche m"),
    *_nouns("thing clothes", "shirt camisa f, hat chapéu m, shoe sapato m, dress vestido m"),
    *_nouns("thing clothes", "coat casaco m"),
    *_nouns("thing dish", "cup xícara f, plate prato m, knife faca f knives, glass copo m"),
    *_nouns("thing dish", "spoon colher f"),
    *_nouns("thing container", "box caixa f, bottle garrafa f, suitcase mala f, bag bolsa f"),
    *_nouns("thing tool", "key chave f, pen caneta f, clock relógio m, lamp luminária f"),
    *_nouns("thing tool", "umbrella guarda-chuva m, phone telefone m, ball bola f"),
    *_nouns("thing fair", "flower flor f, picture quadro m"),
    *_nouns("furniture", "table mesa f, chair cadeira f, bed cama f, sofa sofá m"),
    *_nouns("furniture", "desk escrivaninha f, shelf estante f shelves"),
    *_nouns("opening", "door porta f, window janela f, drawer gaveta f"),
    *_nouns("large", "house casa f, car carro m, boat barco m"),
    *_nouns("animal", "cat gato m, dog cachorro m, bird pássaro m, horse cavalo m"),
    *_nouns("animal", "cow vaca f, mouse rato m mice"),
)
SUBSTANCES: tuple[Noun, ...] = (
    *_nouns("drink", "coffee café m, water água f, milk leite m, tea chá m, juice suco m"),
    *_nouns("meal", "bread pão m, rice arroz m, soup sopa f, fish peixe m, cheese queijo m"),
)
PEOPLE: tuple[Noun, ...] = (
    *_nouns("person", "man homem m men, woman mulher f women, boy menino m, girl menina f"),
    *_nouns("person", "child criança f children, actor ator m, actress atriz f"),
    *_nouns("person", "waiter garçom m, waitress garçonete f"),
)
RELATIVES: tuple[Noun, ...] = (
    *_nouns("person", "father pai m, mother mãe f mothers mães, brother irmão m brothers irmãos"),
    *_nouns("person", "sister irmã f, grandfather avô m, grandmother avó f, uncle tio m"),
    *_nouns("person", "aunt tia f, son filho m, daughter filha f"),
)
PRONOUNS: tuple[Subject, ...] = (
    Subject("I", "eu", "eu", None),
    Subject("he", "ele", "ele", "m"),
    Subject("she", "ela", "ele", "f"),
    Subject("we", "nós", "nós", None),
    Subject("they", "eles", "eles", "m"),
)
NAMES: tuple[Subject, ...] = (
    Subject("Ana", "Ana", "ele", "f"),
    Subject("Maria", "Maria", "ele", "f"),
    Subject("Pedro", "Pedro", "ele", "m"),
    Subject("Carlos", "Carlos", "ele", "m"),
)
# What objects stand on, under or near, with the prepositions that suit each.
LANDMARKS: tuple[tuple[Noun, frozenset[str]], ...] = tuple(
    (noun, frozenset(relations.split()))
    for noun in OBJECTS
    for name, relations in (
        ("table", "on under near"),
        ("chair", "on under behind"),
        ("bed", "on under beside"),
        ("sofa", "on behind beside"),
        ("desk", "on under front"),
        ("shelf", "on behind beside"),
        ("door", "behind near front"),
        ("window", "near front beside"),
        ("drawer", "in"),
        ("box", "in on under"),
        ("suitcase", "in beside behind"),
        ("bag", "in near"),
        ("car", "in under near front"),
        ("house", "in near behind front"),
    )
    if noun.english == name
)
RELATIONS: dict[str, tuple[str, str]] = {
    "on": ("on", "em cima de"),
    "under": ("under", "debaixo de"),
    "in": ("in", "em"),
    "near": ("near", "perto de"),
    "behind": ("behind", "atrás de"),
    "front": ("in front of", "na frente de"),
    "beside": ("next to", "ao lado de"),
}


def _adjectives(kinds: str, entries: str, passing: bool = False) -> list[Adjective]:
    words = (entry.split() for entry in entries.split(","))
    return [Adjective(word[0], word[1], frozenset(kinds.split()), passing) for word in words]


ADJECTIVES: tuple[Adjective, ...] = (
    *_adjectives("clothes dish container tool furniture opening large", "red vermelho, blue azul"),
    *_adjectives(
        "clothes dish container tool furniture opening large", "green verde, white branco"
    ),
    *_adjectives("clothes dish container tool furniture large animal fair", "yellow amarelo"),
    *_adjectives("clothes dish container tool furniture large animal", "black preto"),
    *_adjectives("paper clothes dish container tool furniture opening large fair", "new novo"),
    *_adjectives("paper clothes container tool furniture opening large animal fair", "old velho"),
    *_adjectives("food dish container furniture opening large animal tool fair", "big grande"),
    *_adjectives("food dish container furniture opening large animal tool", "small pequeno"),
    *_adjectives("paper clothes tool furniture large fair animal", "beautiful bonito"),
    *_adjectives("paper food clothes tool furniture large fair", "expensive caro, cheap barato"),
    *_adjectives("clothes dish container furniture opening large", "dirty sujo", passing=True),
    *_adjectives("clothes dish container furniture opening large", "clean limpo", passing=True),
    *_adjectives("dish container tool furniture opening", "broken quebrado", passing=True),
    *_adjectives("container dish", "empty vazio, full cheio", passing=True),
    *_adjectives("drink meal", "hot quente, cold frio", passing=True),
    *_adjectives("meal food", "fresh fresco", passing=True),
)
PERSON_ADJECTIVES: tuple[Adjective, ...] = tuple(
    _adjectives("person", "tall alto, young jovem, kind gentil, old velho, strong forte")
)
STATES: tuple[Adjective, ...] = (
    *_adjectives("person", "tired cansado, happy feliz, sad triste, sick doente", passing=True),
    *_adjectives("person", "worried preocupado, busy ocupado, ready pronto", passing=True),
)


def _place(entry: str) -> Place:
    preposition, english, portuguese, gender = entry.split()
    return Place(english.replace("_", " "), preposition, portuguese, "f" if gender == "f" else "m")


PLACES: dict[str, Place] = {
    place.english: place
    for entries in (
        "in kitchen cozinha f, in garden jardim m, in park parque m, at school escola f",
        "at market mercado m, at beach praia f, in library biblioteca f, at station estação f",
        "at hotel hotel m, in church igreja f, in living_room sala f, in bedroom quarto m",
        "at hospital hospital m, in office escritório m, at restaurant restaurante m",
        "at airport aeroporto m, in street rua f, in river rio m, in lake lago m",
    )
    for place in map(_place, entries.split(", "))
}

ALL_TENSES = ("habit", "now", "past", "future")


def _verb(
    entry: str, objects: str, tenses: tuple[str, ...] = ALL_TENSES, preposition: str = ""
) -> Verb:
    """Parse ``english portuguese [past [gerund]]``."""
    english, portuguese, *forms = entry.split()
    return Verb(
        english=english,
        past=forms[0] if forms else add_ed(english),
        gerund=forms[1] if len(forms) > 1 else add_ing(english),
        portuguese=conjugate(portuguese),
        objects=frozenset(kind.replace("_", " ") for kind in objects.split()),
        tenses=tenses,
        preposition=preposition,
    )


_WARES = "paper food clothes dish container tool furniture large fair"
_ONCE = ("past", "future")
_STATIVE = ("present",)
ACTIONS: tuple[Verb, ...] = (
    _verb("read ler read", "paper"),
    _verb("write escrever wrote", "text"),
    _verb("buy comprar bought", _WARES + " meal drink"),
    _verb("sell vender sold", _WARES + " meal animal"),
    _verb("see ver saw", _WARES + " animal person", ("past", "future", "habit")),
    _verb("find encontrar found", "paper clothes dish container tool animal", _ONCE),
    _verb("lose perder lost", "paper clothes container tool", _ONCE),
    _verb("forget esquecer forgot", "paper clothes container tool", _ONCE),
    _verb("open abrir", "container opening"),
    _verb("close fechar", "container opening"),
    _verb("wash lavar", "clothes dish opening large"),
    _verb("clean limpar", "furniture opening large dish"),
    _verb("paint pintar", "furniture opening large fair"),
    _verb("eat comer ate", "food meal"),
    _verb("drink beber drank", "drink"),
    _verb("cut cortar cut cutting", "food meal"),
    _verb("bring trazer brought", "paper food clothes container tool fair meal drink"),
    _verb("carry carregar", "container furniture tool"),
    _verb("break quebrar broke", "dish tool furniture", _ONCE),
    _verb("hide esconder hid", "paper clothes container tool food", (*_ONCE, "now")),
    _verb("wear usar wore", "clothes"),
    _verb("visit visitar", "person"),
    _verb("help ajudar", "person"),
    _verb("invite convidar", "person", (*_ONCE, "now")),
    _verb("want querer", _WARES + " meal drink", _STATIVE),
    _verb("need precisar", "paper clothes dish container tool furniture", _STATIVE, "de"),
    _verb("like gostar", "paper food clothes large fair animal meal drink", _STATIVE, "de"),
)
ACTIVITIES: tuple[Verb, ...] = (
    _verb("work trabalhar", "office hospital restaurant hotel market library garden school"),
    _verb("study estudar studied", "library school bedroom living_room park kitchen"),
    _verb("sleep dormir slept", "bedroom living_room hotel garden park beach"),
    _verb("play brincar", "park garden beach school bedroom living_room street"),
    _verb("run correr ran running", "park beach garden street school"),
    _verb("sing cantar sang", "church school restaurant garden park kitchen"),
    _verb("dance dançar", "kitchen living_room street hotel restaurant garden beach"),
    _verb("wait esperar", "station hospital office hotel church restaurant airport market street"),
    _verb("rest descansar", "bedroom living_room garden park hotel beach"),
    _verb("walk caminhar", "park beach garden street market"),
    _verb("cook cozinhar", "kitchen restaurant hotel school garden"),
    _verb("swim nadar swam swimming", "river lake hotel beach"),
)
DESTINATIONS: tuple[Place, ...] = tuple(
    place
    for place in PLACES.values()
    if place.english not in ("kitchen", "garden", "living room", "bedroom", "street")
)

TIMES: dict[str, tuple[Time, ...]] = {
    "habit": (
        Time("every day", "todos os dias"),
        Time("every morning", "todas as manhãs"),
        Time("every week", "toda semana"),
        Time("in the morning", "pela manhã"),
        Time("in the afternoon", "à tarde"),
        Time("on Sundays", "aos domingos"),
    ),
    "now": (Time("", ""), Time("now", "agora")),
    "past": (
        Time("", ""),
        Time("yesterday", "ontem"),
        Time("last week", "na semana passada"),
        Time("this morning", "hoje de manhã"),
        Time("last night", "ontem à noite"),
        Time("last Saturday", "no sábado passado"),
    ),
    "future": (
        Time("", ""),
        Time("tomorrow", "amanhã"),
        Time("next week", "na semana que vem"),
        Time("tonight", "hoje à noite"),
        Time("next Friday", "na próxima sexta-feira"),
    ),
    "present": (Time("", ""),),
}
