import dataclasses

import jax
import pytest

from flax_transformer.decoding import room
from flax_transformer.decoding.beam_strategy import BeamSearch
from flax_transformer.decoding.forced_token import ForcedToken
from flax_transformer.decoding.generate import generate
from flax_transformer.decoding.greedy import Greedy
from flax_transformer.decoding.programs import advance
from flax_transformer.decoding.token_constraints import SuppressedTokens
from flax_transformer.errors import InputError
from flax_transformer.evaluation.translate import translate, translate_windows
from flax_transformer.evaluation.translation import EMPTY_TRANSLATION, Request, Translation
from flax_transformer.parallel.mesh import MeshConfig, make_mesh
from flax_transformer.parallel.parameter_sharding import parameter_shardings
from flax_transformer.parallel.sharding_rules import ShardingRules

STRATEGY = BeamSearch(beam_size=3, num_best=3, length_penalty=0.0)
BATCH_TOKENS = 64  # in place of the default, for smaller batches
TOO_LONG = 17 * "old " + 100 * "x"
NEW_LINES = [
    "The The cat",
    "",
    "boy red",
    TOO_LONG,
    "</s> <pad>",
    "\u202e\u0430\u0431 \U0001f469\u200d\U0001f467 \x00",
    " \t\u3000",
    "\ud800",
]


@pytest.fixture(scope="module")
def lines(tiny_translator):
    return [*NEW_LINES, *(pair.source for pair in tiny_translator.pairs[::3])]


@pytest.fixture(scope="module")
def run(tiny_translator):
    model, params, tokenizer, _ = tiny_translator

    def run(lines, strategy=STRATEGY, **options):
        return translate(model, params, tokenizer, lines, strategy=strategy, **options)

    return run


@pytest.fixture(scope="module")
def expected(run, lines):
    return run(lines)


def assert_same(
    actual: list[list[Translation]], expected: list[list[Translation]], *, tolerance: float = 1e-4
) -> None:
    assert len(actual) == len(expected)
    for n_best, others in zip(actual, expected, strict=True):
        assert [t._replace(score=0.0) for t in n_best] == [t._replace(score=0.0) for t in others]
        scores = [translation.score for translation in others]
        close = pytest.approx(scores, rel=tolerance, abs=tolerance)
        assert [translation.score for translation in n_best] == close


def test_outputs_are_in_the_order_of_the_lines(tiny_translator, expected):
    pairs = tiny_translator.pairs[::3]
    translations = [n_best[0].text for n_best in expected[len(NEW_LINES) :]]
    num_right = sum(text == pair.target for text, pair in zip(translations, pairs, strict=True))
    assert num_right > len(pairs) // 2


def test_outputs_do_not_depend_on_order_neighbours_or_batch_size(run, lines, expected):
    assert_same(run(lines[::-1], batch_tokens=BATCH_TOKENS, num_streams=2)[::-1], expected)
    assert_same(run(lines[-1:]), expected[-1:])


@pytest.mark.parametrize(
    ("mesh_config", "strategy"),
    [(MeshConfig(data=2, fsdp=2, tensor=2), STRATEGY), (MeshConfig(data=8), Greedy())],
)
def test_outputs_do_not_depend_on_the_mesh(
    tiny_translator, run, mesh_config, strategy, monkeypatch
):
    model, params, tokenizer, pairs = tiny_translator
    lines = ["", *(pair.source for pair in pairs[:30:5])]  # fewer than devices
    expected = run(lines, strategy=strategy)
    # On the mesh the cache grows, and what is dead leaves it.
    monkeypatch.setattr(room, "_FIRST_ROOM", 3)
    monkeypatch.setattr(room, "_COMPACTED_ROOM", 1)
    mesh = make_mesh(mesh_config)
    if mesh_config.tensor > 1:
        # The sizes of the tiny vocabulary and of its hidden layers are odd.
        axes = dict(ShardingRules().axes) | {"vocab": "_", "mlp": "_"}
        rules = dataclasses.replace(ShardingRules(), axes=tuple(axes.items()))
        params = jax.device_put(params, parameter_shardings(params, mesh, rules))
    actual = translate(model, params, tokenizer, lines, strategy=strategy, mesh=mesh)
    assert_same(actual, expected, tolerance=1e-5)
    num_programs = advance._cache_size()
    again = translate(model, params, tokenizer, lines[::-1], strategy=strategy, mesh=mesh)
    assert_same(again[::-1], actual, tolerance=1e-5)
    assert advance._cache_size() == num_programs


def test_windows_make_no_difference(tiny_translator, lines, expected):
    model, params, tokenizer, _ = tiny_translator
    windows = list(
        translate_windows(
            model,
            params,
            tokenizer,
            iter(lines),
            strategy=STRATEGY,
            batch_tokens=BATCH_TOKENS,
            window_size=11,
        )
    )
    assert [len(window) for window in windows] == [11, 11, len(lines) - 22]
    assert_same([n_best for window in windows for n_best in window], expected)


def test_a_stream_is_read_no_further_than_its_window(tiny_translator):
    def endless():
        while True:
            yield ""

    model, params, tokenizer, _ = tiny_translator
    windows = translate_windows(
        model, params, tokenizer, endless(), strategy=STRATEGY, window_size=2
    )
    assert next(windows) == [[EMPTY_TRANSLATION], [EMPTY_TRANSLATION]]


def test_a_line_without_text_becomes_an_empty_one_without_the_model(tiny_translator):
    model, _, tokenizer, _ = tiny_translator
    result = translate(model, {}, tokenizer, ["", " \t", "\u3000\r"], strategy=STRATEGY)
    assert result == [[EMPTY_TRANSLATION]] * 3


def test_hypotheses_are_sorted_and_different(expected):
    for n_best in expected[len(NEW_LINES) :]:
        scores = [translation.score for translation in n_best]
        assert len(n_best) == STRATEGY.num_best
        assert scores == sorted(scores, reverse=True)
        assert len({translation.text for translation in n_best}) > 1


def test_too_long_a_line_is_cut_and_named(run, caplog, expected, tiny_translator):
    lines = ["The cat", TOO_LONG]
    length = len(tiny_translator.tokenizer.source.encode(TOO_LONG)) + 1
    result = run(lines)
    assert [record.getMessage() for record in caplog.records] == [
        f"line 2 has {length} tokens, more than the 61 that fit: its end is cut off"
    ]
    assert_same(result[1:], expected[3:4])


def test_the_length_limit_marks_what_it_cuts(run, lines, expected):
    short = run(lines[-1:], strategy=Greedy(max_length=3))
    assert [(t.num_tokens, t.truncated) for (t,) in short] == [(3, True)]
    assert not any(n_best[0].truncated for n_best in expected[len(NEW_LINES) :])


def test_an_end_that_is_forced_is_so_at_the_limit_of_the_source(run, tiny_translator):
    eos_id = tiny_translator.tokenizer.target.eos_id
    forced = (SuppressedTokens((eos_id,)), ForcedToken(eos_id, 60))
    ((translation,),) = run(["The cat"], strategy=Greedy(max_length=61, processors=forced))
    assert (translation.num_tokens, translation.truncated) == (42, False)


def test_what_is_asked_for_outlasts_the_limit_of_the_source(run, tiny_translator):
    num_tokens = len(tiny_translator.tokenizer.source.encode("The cat")) + 1
    strategy = Greedy(max_length=61, min_length_ratio=50 / num_tokens)
    ((translation,),) = run(["The cat"], strategy=strategy)
    assert translation.num_tokens >= 50
    eos_id = tiny_translator.tokenizer.target.eos_id
    endless = Greedy(max_length=61, processors=(SuppressedTokens((eos_id,)),))
    for limit_by_source, expected in ((True, 42), (False, 61)):
        found = run(["The cat"], strategy=endless, limit_by_source=limit_by_source)
        assert found[0][0].num_tokens == expected


def test_streams_do_not_share_a_mesh(run):
    with pytest.raises(InputError, match="num_streams must be 1 on a mesh"):
        run(["The cat"], mesh=make_mesh(MeshConfig(data=2), jax.devices()[:2]), num_streams=2)


def test_a_translation_begins_with_its_prefix_and_holds_its_constraints(tiny_translator, run):
    pair, other = tiny_translator.pairs[0], tiny_translator.pairs[7]
    first, second = other.target.split()[:2]
    lines = [
        pair.source,
        Request(pair.source, prefix=f"{first} {second}"),
        Request(pair.source, constraints=(second,)),
    ]
    plain, prefixed, constrained = run(lines)
    assert second not in plain[0].text.split()
    assert prefixed[0].text.startswith(f"{first} {second}")
    assert second in constrained[0].text.split()
    assert_same([plain], run([pair.source]))


def test_alignments_are_of_words(tiny_translator, run):
    pair = tiny_translator.pairs[0]
    (translations,) = run([pair.source], with_alignment=True)
    num_source_words = len(pair.source.split())
    for translation in translations:
        sources, targets = zip(*translation.alignment, strict=True)
        assert set(sources) <= set(range(num_source_words))
        assert set(targets) == set(range(len(translation.text.split())))
    assert run([pair.source])[0][0].alignment == ()


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_less_precision_gives_nearly_the_same_scores(run, lines, expected, precision):
    rounded = run(lines, precision=precision)
    same = 0
    for n_best, others in zip(rounded, expected, strict=True):
        same += n_best[0].text == others[0].text
        if n_best[0].text == others[0].text:
            assert n_best[0].score == pytest.approx(others[0].score, abs=0.3)
    assert same > 0.7 * len(lines)
    assert rounded != expected


def test_progress_counts_each_line_once(run, lines):
    counts = []
    run(lines, progress=counts.append)
    assert sum(counts) == len(lines)


def test_many_sizes_of_input_need_few_programs(run, tiny_translator, monkeypatch):
    programs = set()

    def recorded_generate(model, params, inputs, *, strategy, **options):
        programs.add((inputs.shape, strategy))
        return generate(model, params, inputs, strategy=strategy, **options)

    monkeypatch.setattr("flax_transformer.evaluation.batch_translator.generate", recorded_generate)
    for count in range(1, 17):
        run([tiny_translator.pairs[0].source] * count, batch_tokens=BATCH_TOKENS)
    assert {shape for shape, _ in programs} == {(1, 16), (4, 16)}
    assert len(programs) == 2


@pytest.mark.parametrize("length", [1, 62])
def test_max_source_length_must_fit_the_model(run, length):
    with pytest.raises(InputError, match=f"between 2 and max_positions = 61, got {length}"):
        run(["The cat"], max_source_length=length)


def test_no_lines(run):
    assert run([]) == []


@pytest.mark.parametrize(
    ("lines", "name"),
    [("a b", "lines"), ([Request("a b", constraints="azul")], "constraints")],
)
def test_one_text_in_place_of_several_is_refused(tiny_translator, lines, name):
    model, params, tokenizer, _ = tiny_translator
    with pytest.raises(InputError, match=f"{name} must be several texts, got one"):
        translate(model, params, tokenizer, lines, strategy=BeamSearch(beam_size=2))
