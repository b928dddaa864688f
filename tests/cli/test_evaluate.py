import json

import pytest

from flax_transformer.evaluation.metrics import corpus_scores


@pytest.fixture
def files(tiny_translator, tmp_path):
    pairs = tiny_translator.pairs[:5]
    source, reference = tmp_path / "source", tmp_path / "reference"
    source.write_text("".join(f"{pair.source}\n" for pair in pairs))
    # One reference that the model cannot reach.
    reference.write_text("".join(f"{pair.target}\n" for pair in pairs[:-1]) + "Um avião amarelo.\n")
    return source, reference


def test_scores_are_those_of_the_translations(run_main, model_directory, files, tmp_path):
    source, reference = files
    kept = tmp_path / "kept"
    status, output, _ = run_main(
        "evaluate", model_directory, "--source", source, "--reference", reference, "--json",
        "--output", kept,
    )  # fmt: skip
    result = json.loads(output)
    expected = corpus_scores(kept.read_text().splitlines(), reference.read_text().splitlines())
    assert status == 0
    assert {name: result[name] for name in expected._fields} == expected._asdict()
    assert (result["num_lines"], result["num_truncated"]) == (5, 0)
    assert 30.0 < result["bleu"] < 99.0


def test_the_table_shows_signatures(run_main, model_directory, files):
    source, reference = files
    _, output, _ = run_main(
        "evaluate", model_directory, "--source", source, "--reference", reference
    )
    assert [line.split()[0] for line in output.splitlines()] == ["BLEU", "chrF", "TER", "5"]
    assert "tok:13a" in output


@pytest.mark.parametrize(("content", "message"), [("a\nb\n", "got 5 and 2"), ("", "got 5 and 0")])
def test_unequal_files_are_refused_before_the_model(run_main, files, tmp_path, content, message):
    source, reference = files
    reference.write_text(content)
    status, output, errors = run_main(
        "evaluate", tmp_path / "no-model", "--source", source, "--reference", reference
    )
    assert (status, output) == (1, "")
    assert "must have equally many lines" in errors
    assert message in errors


def test_empty_files_are_refused(run_main, files, tmp_path):
    empty = tmp_path / "empty"
    empty.touch()
    status, _, errors = run_main(
        "evaluate", tmp_path / "no-model", "--source", empty, "--reference", empty
    )
    assert status == 1
    assert "must hold at least one line" in errors
