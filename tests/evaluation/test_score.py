import pytest

from flax_transformer.decoding.beam_search import BeamSearch
from flax_transformer.decoding.forced_token import ForcedToken
from flax_transformer.decoding.greedy import Greedy
from flax_transformer.errors import InputError
from flax_transformer.evaluation.score import score_pairs
from flax_transformer.evaluation.translate import translate
from flax_transformer.evaluation.translation import Request


def test_score_of_a_translation_is_that_of_its_search(tiny_translator):
    model, params, tokenizer, pairs = tiny_translator
    sources = [pair.source for pair in pairs[::3]]
    strategy = BeamSearch(beam_size=3, num_best=3, length_penalty=0.0)
    translations = [
        n_best[0] for n_best in translate(model, params, tokenizer, sources, strategy=strategy)
    ]
    scores = score_pairs(model, params, tokenizer, sources, [t.text for t in translations])
    # The search may find a text by another segmentation than the tokenizer's.
    compared = [
        (score, translation.score)
        for score, translation in zip(scores, translations, strict=True)
        if len(tokenizer.target.encode(translation.text)) + 1 == translation.num_tokens
    ]
    assert len(compared) > len(sources) // 2
    assert [score for score, _ in compared] == pytest.approx(
        [expected for _, expected in compared], abs=1e-4
    )


def test_a_forced_first_token_counts_as_certain_as_in_the_search(tiny_translator):
    model, params, tokenizer, pairs = tiny_translator
    first_id = tokenizer.target.bos_id
    strategy = Greedy(processors=(ForcedToken(first_id, 0),))
    sources = [pair.source for pair in pairs[:5]]
    found = [best for (best,) in translate(model, params, tokenizer, sources, strategy=strategy)]
    texts = [translation.text for translation in found]
    scores = score_pairs(model, params, tokenizer, sources, texts, forced_first_id=first_id)
    compared = [
        (score, translation.score)
        for score, translation in zip(scores, found, strict=True)
        if len(tokenizer.target.encode(translation.text)) + 2 == translation.num_tokens
    ]
    assert compared
    for score, expected in compared:
        assert score == pytest.approx(expected, abs=1e-4)
    lines = [Request(sources[0], prefix="O navio")]
    (prefixed,) = translate(model, params, tokenizer, lines, strategy=strategy)
    assert prefixed[0].text.startswith("O navio")
    (score,) = score_pairs(
        model, params, tokenizer, sources[:1], [prefixed[0].text], forced_first_id=first_id
    )
    assert prefixed[0].score == pytest.approx(score, abs=1e-4)


def test_scores_do_not_depend_on_neighbours_order_or_batch_size(tiny_translator):
    model, params, tokenizer, pairs = tiny_translator
    sources = ["", *(pair.source for pair in pairs[:7]), "old " * 9]
    targets = ["O gato.", *(pair.target for pair in pairs[7:14]), ""]
    expected = score_pairs(model, params, tokenizer, sources, targets)
    actual = score_pairs(model, params, tokenizer, sources[::-1], targets[::-1], batch_tokens=32)
    assert actual[::-1] == pytest.approx(expected, abs=1e-4)
    assert all(score < 0.0 for score in expected)


def test_unequal_counts_are_refused(tiny_translator):
    model, params, tokenizer, _ = tiny_translator
    with pytest.raises(InputError, match="equally many, got 2 and 1"):
        score_pairs(model, params, tokenizer, ["a", "b"], ["c"])


def test_too_long_a_target_is_named_and_too_long_a_source_is_cut(tiny_translator, caplog):
    model, params, tokenizer, _ = tiny_translator
    with pytest.raises(InputError, match=r"at most 61 tokens long.* in line 2"):
        score_pairs(model, params, tokenizer, ["a", "a"], ["b", "x " * 61])
    assert score_pairs(model, params, tokenizer, ["x " * 61], ["O gato."])[0] < 0.0
    assert "line 1 has" in caplog.text


@pytest.mark.parametrize(("sources", "targets"), [("ab", ["c", "d"]), (["a", "b"], "cd")])
def test_one_text_in_place_of_several_is_refused(tiny_translator, sources, targets):
    model, params, tokenizer, _ = tiny_translator
    name = "sources" if isinstance(sources, str) else "targets"
    with pytest.raises(InputError, match=rf"{name} must be several texts, got one: '\w\w'\."):
        score_pairs(model, params, tokenizer, sources, targets)
