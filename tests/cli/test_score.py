import pytest

from flax_transformer.evaluation.score import score_pairs


def test_a_log_probability_for_each_line(run_main, model_directory, tiny_translator, tmp_path):
    model, params, tokenizer, pairs = tiny_translator
    sources = ["", *(pair.source for pair in pairs[:4])]
    targets = ["", *(pair.target for pair in pairs[1:5])]
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("\n".join(sources))
    target.write_text("\n".join(targets) + "\n")
    status, output, errors = run_main(
        "score", model_directory, "--source", source, "--target", target
    )
    assert (status, errors) == (0, "")
    assert [float(line) for line in output.splitlines()] == pytest.approx(
        score_pairs(model, params, tokenizer, sources, targets), abs=1e-3
    )


def test_unequal_files_are_refused_with_both_counts(run_main, model_directory, tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("a\nb\n")
    target.write_text("a\n")
    output = tmp_path / "output"
    status, _, errors = run_main(
        "score", model_directory, "--source", source, "--target", target, "--output", output
    )
    assert (status, output.exists()) == (1, False)
    assert "got 2 and 1" in errors
