"""A sentence pair, and the one rule by which text becomes a sentence."""

import re
from typing import NamedTuple

# All that some tool takes for the end of a line (str.splitlines), and the tab, which ends a field.
_BREAKS = "\t\n\v\f\r\x1c\x1d\x1e\x85\u2028\u2029"
# Much faster than str.translate on text that is not ASCII.
_BREAK = re.compile(f"[{_BREAKS}]")


class SentencePair(NamedTuple):
    """A sentence and its translation, in the direction that is translated."""

    source: str
    target: str


def clean_text(text: str) -> str:
    r"""Make text a single line: breaks and tabs within it become spaces, its edges are stripped.

    Everything else stays as it is. In particular entities such as ``&amp;``, which the development
    sets of WMT contain, are left: in technical text they may be meant, and the tokenisation of BLEU
    (13a) resolves them on both sides anyway.

    >>> clean_text("\u00a0one\ttwo\u2028three &amp; four\r\n")
    'one two three &amp; four'
    """
    return _BREAK.sub(" ", text).strip()
