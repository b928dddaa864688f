"""Sentence pairs from text files, and the config that says where pairs come from."""

import gzip
from pathlib import Path

import pytest

from flax_transformer.data.sentence_pair import clean_text
from flax_transformer.data.sources import DataConfig, describe_direction, load_sentence_pairs
from flax_transformer.errors import InputError


def text_config(root: Path, **changes: object) -> DataConfig:
    values: dict = {"kind": "text", "dataset": "set", "data_dir": str(root), **changes}
    return DataConfig(source_language="en", target_language="de", **values)


def write(root: Path, name: str, content: bytes) -> None:
    path = root / "set" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)


# Text


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_parallel_files_are_read_line_by_line(tmp_path: Path, suffix: str) -> None:
    write(tmp_path, f"train.en{suffix}", "One.\nTwo é.\n".encode())
    write(tmp_path, f"train.de{suffix}", "Eins.\nZwei ß.".encode())
    pairs = load_sentence_pairs(text_config(tmp_path), "train")
    assert pairs == [("One.", "Eins."), ("Two é.", "Zwei ß.")]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_tables_are_read(tmp_path: Path, suffix: str) -> None:
    write(tmp_path, f"train.tsv{suffix}", b"One.\tEins.\r\nTwo.\tZwei.\r\n")
    pairs = load_sentence_pairs(text_config(tmp_path), "train")
    assert pairs == [("One.", "Eins."), ("Two.", "Zwei.")]


def test_no_character_within_a_line_shifts_the_lines(tmp_path: Path) -> None:
    lines = ["a\u2028b", "c\x0cd\te", "f\u0085g\x1ch", "i\rj", "k\u00a0l"]
    write(tmp_path, "train.en", b"\xef\xbb\xbf" + "".join(f"{x}\r\n" for x in lines).encode())
    write(tmp_path, "train.de", "".join(f"{x}\n" for x in "12345").encode())
    pairs = load_sentence_pairs(text_config(tmp_path), "train")
    assert [pair.target for pair in pairs] == list("12345")
    assert [pair.source for pair in pairs] == ["a b", "c d e", "f g h", "i j", "k\u00a0l"]


def test_cleaning_is_idempotent_and_leaves_one_line() -> None:
    text = "".join(map(chr, range(0x3100)))
    cleaned = clean_text(text)
    assert clean_text(cleaned) == cleaned
    assert cleaned.splitlines() == [cleaned]
    assert "\t" not in cleaned


def test_unequal_files_are_refused_with_both_counts(tmp_path: Path) -> None:
    write(tmp_path, "train.en", b"a\nb\nc\n")
    write(tmp_path, "train.de", b"a\nb\n")
    with pytest.raises(InputError, match=r"train.en and .*train.de must .* got 3 and 2"):
        load_sentence_pairs(text_config(tmp_path), "train")


def test_invalid_utf8_is_refused_with_file_line_and_count(tmp_path: Path) -> None:
    write(tmp_path, "train.en", b"a\nb\n")
    write(tmp_path, "train.de", b"a\nStra\xdfe\nb\n\xfe\n")
    message = r"train.de must be UTF-8, got byte 0xdf in line 2.* 2 of 4 lines are not UTF-8"
    with pytest.raises(InputError, match=message):
        load_sentence_pairs(text_config(tmp_path), "train")


def test_pairs_with_an_empty_side_keep_their_line(tmp_path: Path) -> None:
    write(tmp_path, "test.en", b"a\n\nc\nd\n")
    write(tmp_path, "test.de", b"1\n2\n \n4\n")
    pairs = load_sentence_pairs(text_config(tmp_path), "test")
    assert pairs == [("a", "1"), ("", "2"), ("c", ""), ("d", "4")]


@pytest.mark.parametrize("name", ["train.en-de.tsv", "train.de-en.tsv"])
def test_the_name_of_a_table_tells_its_columns(tmp_path: Path, name: str) -> None:
    columns = ("One.", "Eins.") if name == "train.en-de.tsv" else ("Eins.", "One.")
    write(tmp_path, name, "\t".join(columns).encode())
    assert load_sentence_pairs(text_config(tmp_path), "train") == [("One.", "Eins.")]


@pytest.mark.parametrize("content", [b"", b"\n\n", b" \n\t\n"])
def test_an_empty_corpus_is_refused(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, "train.en", content)
    write(tmp_path, "train.de", content)
    with pytest.raises(InputError, match="train must contain sentence pairs"):
        load_sentence_pairs(text_config(tmp_path), "train")


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"got .*/set, which is none"):
        load_sentence_pairs(text_config(tmp_path), "train")
    write(tmp_path, "train.en", b"a\n")
    with pytest.raises(InputError, match=r"/set/train.de must exist"):
        load_sentence_pairs(text_config(tmp_path), "train")
    (tmp_path / "set/train.de").mkdir()
    with pytest.raises(InputError, match=r"/set/train.de must be a readable file: Is a directory"):
        load_sentence_pairs(text_config(tmp_path), "train")


def test_a_damaged_gzip_file_is_refused(tmp_path: Path) -> None:
    for language in ("en", "de"):
        write(tmp_path, f"train.{language}.gz", b"some text\n" * 99)
    file = tmp_path / "set/train.de.gz"
    whole = file.read_bytes()
    for content in (whole[:-5], b"plain", whole[:20] + b"\x00\x01\x02" + whole[23:]):
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"train.de.gz must be a whole gzip file"):
            load_sentence_pairs(text_config(tmp_path), "train")


def test_a_table_with_another_number_of_columns_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "train.tsv", b"a\tb\nc\td\te\n")
    with pytest.raises(InputError, match=r"train.tsv must have two columns, .* got 3 in line 2"):
        load_sentence_pairs(text_config(tmp_path), "train")


def test_labels_select_lines(tmp_path: Path) -> None:
    for split in ("train", "dev"):
        write(tmp_path, f"{split}.en", b"a\nb\nc\nd\n")
        write(tmp_path, f"{split}.de", b"1\n2\n3\n4\n")
    write(tmp_path, "train.src", b"x\ny\nz\nx\n")
    config = text_config(tmp_path, labels=("x", "z"), test="dev")
    assert load_sentence_pairs(config, "train") == [("a", "1"), ("c", "3"), ("d", "4")]
    assert len(load_sentence_pairs(config, "dev")) == 4  # the test set has no labels
    with pytest.raises(InputError, match=r"dev.src must exist"):
        load_sentence_pairs(text_config(tmp_path, labels=("x",)), "dev")
    with pytest.raises(InputError, match=r"labels must occur in .* \(x, y, z\), got w"):
        load_sentence_pairs(text_config(tmp_path, labels=("x", "w")), "train")
    write(tmp_path, "train.src", b"x\ny\n")
    with pytest.raises(InputError, match=r"one label for each of the 4 lines of text, got 2"):
        load_sentence_pairs(config, "train")


def test_the_data_directory_comes_from_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "train.tsv", b"a\tb\n")
    monkeypatch.setenv("FLAX_TRANSFORMER_DATA", str(tmp_path))
    config = DataConfig(kind="text", dataset="set", source_language="en", target_language="de")
    assert load_sentence_pairs(config, "train") == [("a", "b")]


# Config


def test_the_direction_is_described() -> None:
    assert describe_direction(DataConfig()) == "en → pt"


@pytest.mark.parametrize(
    "changes",
    [
        {"kind": "csv"},
        {"target_language": "en"},
        {"labels": ("x",)},
        {"train": ""},
        {"dataset": ""},
    ],
)
def test_a_config_that_cannot_work_is_refused(changes: dict) -> None:
    with pytest.raises(InputError, match="must"):
        DataConfig(**changes)
