import itertools

import pytest
import sacrebleu
from sacrebleu.metrics import CHRF

from flax_transformer.errors import InputError
from flax_transformer.evaluation.metrics import corpus_bleu, corpus_scores, sentence_chrf

HYPOTHESES = ["The cat sat on the mat.", "A dog barks &quot;loudly&quot;.", ""]
REFERENCES = ["The cat sits on the mat.", 'A dog barks "loudly".', "Nothing."]


def test_scores_equal_those_of_sacrebleu():
    scores = corpus_scores(HYPOTHESES, REFERENCES)
    assert scores.bleu == sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]).score
    assert scores.chrf == sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES]).score
    assert scores.ter == sacrebleu.corpus_ter(HYPOTHESES, [REFERENCES]).score
    assert 0.0 < scores.bleu < 100.0


def test_signatures_tell_how_the_scores_are_made():
    signatures = corpus_scores(HYPOTHESES, REFERENCES).signatures
    assert signatures["bleu"].startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:2.")
    assert "nc:6|nw:0" in signatures["chrf"]
    assert "tok:tercom" in signatures["ter"]


def test_case_counts():
    assert corpus_bleu(["a b c d e"], ["A B C D E"]).value < 1.0


@pytest.mark.parametrize(
    ("hypotheses", "references", "message"),
    [
        (["a b c d", "e"], ["a b c d"], "equally many, got 2 and 1"),
        (["a"], ["a", "b"], "equally many, got 1 and 2"),
        ([], [], "at least one sentence"),
        (["a"], "a", "references must be a sequence"),
        (["a"], [["a"]], "got list at index 0"),
        (["a", None], ["a", "b"], "hypotheses must hold strings, got NoneType at index 1"),
    ],
)
def test_what_sacrebleu_would_score_wrongly_is_refused(hypotheses, references, message):
    with pytest.raises(InputError, match=message):
        corpus_scores(hypotheses, references)


def test_the_chrf_of_a_sentence_is_that_of_sacrebleu():
    texts = ["", "a", "a cat", "the cat sleeps", "a cat sings, tomorrow", "O pássaro  canta."]
    metric = CHRF()
    for hypothesis, reference in itertools.permutations(texts, 2):
        expected = metric.sentence_score(hypothesis, [reference]).score
        assert sentence_chrf(hypothesis, reference) == pytest.approx(expected)
