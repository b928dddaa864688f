"""The choice by expected utility against the sum over all pairs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flax_transformer.decoding.minimum_bayes_risk import minimum_bayes_risk
from flax_transformer.errors import InputError
from flax_transformer.evaluation.metrics import sentence_chrf


@given(samples=st.lists(st.text("ab ", max_size=6), min_size=1, max_size=7))
def test_it_is_the_sample_of_the_greatest_mean_utility(samples):
    means = [sum(sentence_chrf(one, other) for other in samples) for one in samples]
    chosen = minimum_bayes_risk(samples, sentence_chrf)
    assert means[chosen] == pytest.approx(max(means))
    assert samples.index(samples[chosen]) == chosen


def test_the_sample_that_most_others_are_like_is_chosen():
    samples = [
        "It rains in Spain.",
        "The cat sat on the mat.",
        "The cat sits on a mat.",
        "A cat sat on the mat.",
    ]
    assert minimum_bayes_risk(samples, sentence_chrf) == 1
    assert minimum_bayes_risk(["", "no", ""], sentence_chrf) == 0


def test_each_pair_is_compared_once():
    pairs = []

    def utility(hypothesis, reference):
        pairs.append((hypothesis, reference))
        return 0.0

    minimum_bayes_risk(["a", "b", "a", "a"], utility)
    assert len(pairs) == len(set(pairs)) == 4


def test_no_samples_are_refused():
    with pytest.raises(InputError, match="samples must hold at least one output, got none"):
        minimum_bayes_risk([], sentence_chrf)
