"""Scores of translations against references, by sacreBLEU."""

import functools
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from sacrebleu.metrics.base import Metric
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.metrics.ter import TER

from flax_transformer.errors import InputError


class MetricScore(NamedTuple):
    """The score of a corpus and the sacreBLEU signature under which it can be compared."""

    value: float
    signature: str


class Scores(NamedTuple):
    """All three scores of a corpus, in percent; TER counts errors, so that less is better.

    ``signatures`` holds the signature of each, by the field's name.
    """

    bleu: float
    chrf: float
    ter: float
    signatures: dict[str, str]


def corpus_scores(hypotheses: Sequence[str], references: Sequence[str]) -> Scores:
    """Return BLEU, chrF and TER of ``hypotheses``, one reference each; errors as corpus_bleu.

    >>> scores = corpus_scores(["a b c d e"], ["a b c d e"])
    >>> round(scores.bleu), round(scores.chrf), round(scores.ter)
    (100, 100, 0)
    """
    bleu = corpus_bleu(hypotheses, references)
    chrf = corpus_chrf(hypotheses, references)
    ter = corpus_ter(hypotheses, references)
    signatures = {"bleu": bleu.signature, "chrf": chrf.signature, "ter": ter.signature}
    return Scores(bleu.value, chrf.value, ter.value, signatures)


def corpus_bleu(hypotheses: Sequence[str], references: Sequence[str]) -> MetricScore:
    """Return cased BLEU of detokenised text, tokenised by "13a" (Post, 2018, arXiv 1804.08771).

    Args:
        hypotheses: translations.
        references: one for each translation, untouched by any tokenisation.

    Raises:
        InputError: there are no sentences, one is not a string, or the counts differ (sacreBLEU
            itself drops what has no partner, and scores the rest).
    """
    return _score(BLEU(tokenize="13a"), hypotheses, references)


def corpus_chrf(hypotheses: Sequence[str], references: Sequence[str]) -> MetricScore:
    """Return chrF2, the F-score of character 6-grams (Popović, 2015); errors as corpus_bleu."""
    return _score(CHRF(), hypotheses, references)


def corpus_ter(hypotheses: Sequence[str], references: Sequence[str]) -> MetricScore:
    """Return the translation edit rate (Snover et al., 2006); errors as corpus_bleu.

    The search for shifts takes about a second for a thousand sentences.
    """
    return _score(TER(), hypotheses, references)


def sentence_chrf(hypothesis: str, reference: str) -> float:
    """Return chrF2 of one sentence, in percent; 100 for equal ones, empty ones too.

    A utility for :func:`~flax_transformer.decoding.minimum_bayes_risk.minimum_bayes_risk`.

    >>> round(sentence_chrf("a small cat", "the small cat")), sentence_chrf("", "")
    (66, 100.0)
    """
    if hypothesis == reference:
        return 100.0
    precision = recall = 0.0
    num_orders = 0
    for ours, theirs in zip(_char_ngrams(hypothesis), _char_ngrams(reference), strict=True):
        if ours and theirs:
            same = sum(min(ours[ngram], theirs[ngram]) for ngram in ours.keys() & theirs.keys())
            precision += same / ours.total()
            recall += same / theirs.total()
            num_orders += 1
    if not precision:
        return 0.0
    # The mean of each over the orders; of F with β = 2, precision has a fifth of the weight.
    return 100.0 * 5.0 * precision * recall / (4.0 * precision + recall) / num_orders


@functools.lru_cache(maxsize=512)
def _char_ngrams(text: str) -> tuple[Counter[str], ...]:
    """Count the character n-grams of each order, without spaces.

    Kept for the next call: of N samples, each is compared with all others.
    """
    characters = "".join(text.split())
    return tuple(
        Counter(characters[start : start + order] for start in range(len(characters) + 1 - order))
        for order in range(1, CHRF.CHAR_ORDER + 1)
    )


def _score(metric: Metric, hypotheses: Sequence[str], references: Sequence[str]) -> MetricScore:
    _check_sentences("hypotheses", hypotheses)
    _check_sentences("references", references)
    if len(hypotheses) != len(references):
        raise InputError(
            "hypotheses and references must be equally many, "
            f"got {len(hypotheses)} and {len(references)}."
        )
    if not hypotheses:
        raise InputError("hypotheses must hold at least one sentence, got none.")
    value = float(metric.corpus_score(hypotheses, [references]).score)
    return MetricScore(value, str(metric.get_signature()))


def _check_sentences(name: str, sentences: Sequence[str]) -> None:
    if isinstance(sentences, str):
        raise InputError(f"{name} must be a sequence of sentences, got one string.")
    for index, sentence in enumerate(sentences):
        if not isinstance(sentence, str):
            raise InputError(
                f"{name} must hold strings, got {type(sentence).__name__} at index {index}."
            )
