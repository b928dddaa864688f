import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-m", "flax_transformer", "translate"]


@pytest.fixture
def source(tiny_translator):
    return [pair.source for pair in tiny_translator.pairs[:3]]


@pytest.fixture
def target(tiny_translator):
    return [pair.target for pair in tiny_translator.pairs[:3]]


def encode(lines):
    return "".join(f"{line}\n" for line in lines).encode()


def test_a_line_for_a_line(run_main, model_directory, source, target):
    text = encode(["", *source, "", " "])
    status, output, errors = run_main("translate", model_directory, stdin=text)
    assert (status, errors) == (0, "")
    assert output.split("\n") == ["", *target, "", "", ""]
    # Without the end of the last line.
    assert run_main("translate", model_directory, stdin=text[:-1])[1] == output
    assert run_main("translate", model_directory, "--window", 2, stdin=text)[1] == output
    options = ["--batch-tokens", 16, "--streams", 2]
    assert run_main("translate", model_directory, *options, stdin=text)[1] == output


def test_no_lines(run_main, model_directory):
    assert run_main("translate", model_directory) == (0, "", "")


def test_files(run_main, model_directory, tmp_path, source, target):
    (tmp_path / "in").write_bytes(encode(source))
    options = ["--input", tmp_path / "in", "--output", tmp_path / "out"]
    assert run_main("translate", model_directory, *options) == (0, "", "")
    assert (tmp_path / "out").read_bytes() == encode(target)


def test_scores_follow_a_tab(run_main, model_directory, source, target):
    _, output, _ = run_main("translate", model_directory, "--scores", stdin=encode(source))
    fields = [line.split("\t") for line in output.splitlines()]
    assert [text for text, _ in fields] == target
    assert all(float(score) < 0.0 for _, score in fields)


def test_n_best_lines_hold_the_index_the_text_and_the_score(
    run_main, model_directory, source, target
):
    options = ["--n-best", 3, "--length-penalty", 1, "--length-normalization", "power"]
    text = encode([source[0], "", source[1]])
    _, output, _ = run_main("translate", model_directory, *options, stdin=text)
    fields = [line.split(" ||| ") for line in output.splitlines()]
    assert [index for index, _, _ in fields] == ["0"] * 3 + ["1"] + ["2"] * 3
    assert (fields[0][1], fields[4][1]) == (target[0], target[1])
    for first in (0, 4):
        scores = [float(score) for _, _, score in fields[first : first + 3]]
        assert scores == sorted(scores, reverse=True)


def test_json_holds_it_all(run_main, model_directory, source, target):
    options = ["--json", "--n-best", 2, "--alignment", "--precision", "bfloat16"]
    _, output, _ = run_main("translate", model_directory, *options, stdin=encode([source[0], ""]))
    first, empty = map(json.loads, output.splitlines())
    assert (first["index"], empty["index"]) == (0, 1)
    assert first["translations"][0]["text"] == target[0]
    assert first["translations"][0]["score"] > first["translations"][1]["score"]
    alignment = first["translations"][0]["alignment"]
    assert {word for word, _ in alignment} <= set(range(len(source[0].split())))
    assert {word for _, word in alignment} <= set(range(len(target[0].split())))
    assert len(alignment) > 1
    assert empty["translations"][0]["text"] == ""


def test_devices_share_the_lines(run_main, model_directory, source, target):
    options = ["--devices", 2, "--beam-size", 1, "--alignment"]
    _, output, _ = run_main("translate", model_directory, *options, stdin=encode(source))
    fields = [line.split("\t") for line in output.splitlines()]
    assert [text for text, _ in fields] == target
    assert all("-" in pair for _, alignment in fields for pair in alignment.split())
    status, _, errors = run_main("translate", model_directory, "--devices", 9, stdin=b"")
    assert status == 1
    assert "--devices must be at most the 8 at hand, got 9" in errors


def test_prefixes_and_constraints_are_line_by_line(
    run_main, model_directory, tmp_path, source, target
):
    word = target[0].split()[2]
    first, second = (tmp_path / "first").open("w"), (tmp_path / "second").open("w")
    with first, second:
        first.write(f"{word}\n\n")
        second.write(f"\n{word}\tO\n")
    options = ["--prefix", tmp_path / "first", "--constraints", tmp_path / "second"]
    lines = encode([source[0], source[1]])
    _, output, _ = run_main("translate", model_directory, *options, stdin=lines)
    prefixed, constrained = output.splitlines()
    assert prefixed.startswith(word)
    assert word in constrained
    status, _, errors = run_main("translate", model_directory, *options, stdin=lines + b"a\n")
    assert status == 1
    assert "--prefix must have a line for each line, got none for line 3" in errors
    status, _, errors = run_main("translate", model_directory, *options, stdin=b"\n")
    assert status == 1
    assert "--prefix must have a line for each line, got more than the 1 of the input" in errors


def test_an_ensemble_of_a_model_with_itself_is_the_model(run_main, model_directory, source):
    options = ["--scores", "--beam-size", 2]
    _, alone, _ = run_main("translate", model_directory, *options, stdin=encode(source))
    ensemble = [*options, "--ensemble", model_directory, "--ensemble-weights", 3, 1]
    assert run_main("translate", model_directory, *ensemble, stdin=encode(source))[1] == alone


def test_a_beam_of_one_with_an_option_of_beams_is_a_beam(run_main, model_directory, source):
    def score(*options):
        options = ["--scores", "--beam-size", 1, *options]
        _, output, _ = run_main("translate", model_directory, *options, stdin=encode(source[:1]))
        text, score = output.rstrip().split("\t")
        return text, float(score)

    greedy_text, greedy_score = score()
    options = ["--length-penalty", 1, "--length-normalization", "power"]
    beam_text, beam_score = score(*options)
    assert beam_text == greedy_text
    assert greedy_score < 4 * beam_score < 0.0


def test_samples_are_those_of_the_seed_and_of_the_line(run_main, model_directory, source):
    options = ["translate", model_directory, "--sample", "--temperature", 3, "--max-length", 5]
    _, output, _ = run_main(*options, "--seed", 3, stdin=encode(source))
    assert run_main(*options, "--seed", 3, "--window", 1, stdin=encode(source))[1] == output
    assert run_main(*options, stdin=encode(source))[1] != output


def test_the_sample_most_like_the_others_is_written(run_main, model_directory, source, target):
    options = ["--sample", "--mbr", 8, "--json"]
    _, output, _ = run_main("translate", model_directory, *options, stdin=encode(source[:1]))
    (chosen,) = json.loads(output)["translations"]
    assert chosen["text"] == target[0]


def test_what_is_forbidden_is_not_written(run_main, model_directory, tmp_path, source, target):
    word = target[0].split()[1]
    (tmp_path / "bad").write_text(f"{word}\n\n")
    options = ["--bad-words", tmp_path / "bad", "--no-repeat-ngram", 2, "--max-length", 12]
    status, output, _ = run_main("translate", model_directory, *options, stdin=encode(source[:1]))
    assert status == 0
    assert word not in output.split()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--top-k", 3], "--top-k must be given with --sample"),
        (["--seed", 0], "--seed must be given with --sample"),
        (["--sample", "--beam-size", 5], "--beam-size must not be given with --sample"),
        (["--sample", "--constraints", "x"], "--constraints must not be given with --sample"),
        (["--sample", "--top-p", 1.5], "top_p must lie above 0 and not above 1, got 1.5"),
        (["--repetition-penalty", 0], "penalty must be positive and finite, got 0.0"),
        (["--mbr", 4], "--mbr must be given with --sample"),
        (["--beam-groups", 3], "num_groups must divide beam_size = 5, got 3"),
        (["--diversity-strength", 2], "must be given with --beam-groups of 2 or more"),
        (["--contrast-strength", 2], "--contrast-strength must be given with --contrast"),
        (["--ensemble-weights", 2], "--ensemble-weights must be given with --ensemble"),
        (["--ensemble", "x", "--ensemble-weights", 2], "as many as models, 2, got 1"),
        (["--ensemble", "x", "--contrast", "y"], "--contrast must not be given with --ensemble"),
        (["--precision", "int4"], "--precision"),
    ],
)
def test_options_that_contradict_each_other_are_refused(run_main, options, message):
    status, output, errors = run_main("translate", "no-model", *options)
    assert (status, output) == (2, "")
    assert message in errors
    assert errors.count("\n") == 1


def test_forbidden_texts_that_cannot_be_are_refused(run_main, model_directory, tmp_path):
    (tmp_path / "empty").write_text("\n")
    for options, message in (
        (["--suppress", "gato e cachorro"], "--suppress must name texts of one token"),
        (["--bad-words", tmp_path / "empty"], "empty must hold at least one word, got none"),
    ):
        status, _, errors = run_main("translate", model_directory, *options, stdin=b"a\n")
        assert status == 1
        assert message in errors


def test_translations_that_are_cut_are_counted(run_main, model_directory, source, caplog):
    run_main("translate", model_directory, "--max-length", 3, stdin=encode([*source, ""]))
    assert "3 of 4 translations were cut at the length limit" in caplog.text


def test_faults_leave_the_output_as_it_was(run_main, model_directory, tmp_path):
    (tmp_path / "in").write_bytes(b"\n\xff\n")
    output = tmp_path / "out"
    output.write_text("before")
    options = ["--output", output, "--strict"]
    for path, message in (
        (tmp_path / "missing", "missing: No such file or directory"),
        (tmp_path, "Is a directory"),
        (tmp_path / "in", "must be UTF-8, got byte 0x"),
    ):
        status, _, errors = run_main("translate", model_directory, "--input", path, *options)
        assert status == 1
        assert errors.startswith("flax-transformer translate: error: ")
        assert message in errors
        assert errors.count("\n") == 1
    status, _, errors = run_main("translate", tmp_path / "no-model", *options)
    assert status == 1
    assert "no-model" in errors
    assert output.read_text() == "before"
    assert len(list(tmp_path.iterdir())) == 2


def test_output_over_input_is_refused(run_main, model_directory, tmp_path):
    path = tmp_path / "text"
    path.write_text("before")
    status, _, errors = run_main("translate", model_directory, "--input", path, "--output", path)
    assert (status, path.read_text()) == (2, "before")
    assert "another file than the input" in errors
    for option in ("--bad-words", "--prefix", "--constraints"):
        options = [option, path, "--output", path]
        assert run_main("translate", model_directory, *options)[0] == 2
        assert path.read_text() == "before"


def test_output_is_utf_8_and_messages_go_to_standard_error(model_directory, tiny_translator):
    pair = next(pair for pair in tiny_translator.pairs if "cat returns" in pair.source)
    done = subprocess.run(
        [*COMMAND, model_directory],
        input=pair.source.encode() + b"\n\xff\n",
        capture_output=True,
        check=True,
        env={**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    )
    lines = done.stdout.decode("utf-8").split("\n")
    assert lines[0] == pair.target
    assert "ã" in pair.target
    assert len(lines) == 3
    assert b"WARNING: standard input: line 2 is not UTF-8" in done.stderr


def test_a_reader_that_leaves_is_no_fault(model_directory):
    with subprocess.Popen(
        [*COMMAND, model_directory, "--scores"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.close()
        _, errors = process.communicate(b"\n" * 10_000)
    assert (process.returncode, errors) == (0, b"")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_is_one_line(model_directory):
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, model_directory], input=b"\n", stdout=full, stderr=subprocess.PIPE
        )
    assert done.returncode == 1
    assert done.stderr == b"flax-transformer translate: error: No space left on device\n"
