from pathlib import Path

import pytest

from flax_transformer.data.sentences.corpus import SIZES


def test_prepare_prints_where_the_dataset_lies_and_its_splits(run_main, tmp_path: Path):
    status, output, _ = run_main("prepare", "en_pt_sentences", "--data-dir", tmp_path)
    lines = output.splitlines()
    assert status == 0
    assert lines[0] == f"en_pt_sentences is prepared in {tmp_path}/en_pt_sentences/1.0.0"
    assert set(lines[1:]) == {f"{split}: {size} pairs" for split, size in SIZES.items()}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["en_pt_sentence"], "The nearest name is 'en_pt_sentences'."),
        (["en_pt_sentences", "--convert-from", "nowhere"], "nowhere must hold a prepared dataset"),
    ],
)
def test_what_cannot_be_prepared_ends_in_one_line(
    run_main, tmp_path: Path, arguments: list[str], message: str
):
    status, output, errors = run_main("prepare", *arguments, "--data-dir", tmp_path)
    assert (status, output) == (1, "")
    assert len(errors.splitlines()) == 1
    assert message in errors
