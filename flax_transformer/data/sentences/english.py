"""Inflection of the English words of the sentence grammar."""

_VOWELS = "aeiou"


def add_s(word: str) -> str:
    """Add the ending of plurals and of third persons to ``word``.

    >>> [add_s(word) for word in ("book", "box", "carry", "toy", "go")]
    ['books', 'boxes', 'carries', 'toys', 'goes']
    """
    if word.endswith(("s", "x", "z", "ch", "sh", "o")):
        return word + "es"
    if word.endswith("y") and word[-2] not in _VOWELS:
        return word[:-1] + "ies"
    return word + "s"


def add_ed(verb: str) -> str:
    """Form the past tense of a regular verb.

    >>> [add_ed(verb) for verb in ("wash", "close", "carry")]
    ['washed', 'closed', 'carried']
    """
    if verb.endswith("e"):
        return verb + "d"
    if verb.endswith("y") and verb[-2] not in _VOWELS:
        return verb[:-1] + "ied"
    return verb + "ed"


def add_ing(verb: str) -> str:
    """Form the present participle of a verb that does not double its last consonant.

    >>> [add_ing(verb) for verb in ("wash", "close", "see")]
    ['washing', 'closing', 'seeing']
    """
    if verb.endswith("e") and not verb.endswith("ee"):
        return verb[:-1] + "ing"
    return verb + "ing"


def indefinite_article(next_word: str) -> str:
    """Return "a" or "an", whichever stands before ``next_word``.

    >>> indefinite_article("old"), indefinite_article("book")
    ('an', 'a')
    """
    return "an" if next_word[0].lower() in _VOWELS else "a"
