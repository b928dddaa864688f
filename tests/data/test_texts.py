"""Running text and texts with a class, as they lie in files."""

import gzip

import pytest

from flax_transformer.data.sources import DataConfig, load_documents, load_labelled_texts
from flax_transformer.data.texts import LabelledText, read_documents, read_labelled_texts
from flax_transformer.errors import InputError


@pytest.fixture
def directory(tmp_path):
    lines = ["", "one", "two", "", " ", "three", "", "four\u2028still", "five"]
    (tmp_path / "text.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return tmp_path


def test_blank_lines_divide_documents(directory):
    assert read_documents(directory, "text") == ["one\ntwo", "three", "four\u2028still\nfive"]


def test_parts_of_a_file_are_its_lines_and_make_up_the_whole(directory):
    assert read_documents(directory, "text[:2]") == ["one"]
    assert read_documents(directory, "text[2:6]") == ["two", "three"]
    whole = "\n".join(read_documents(directory, "text")).split("\n")
    parts = [read_documents(directory, f"text[{part}]") for part in (":33%", "33%:70%", "70%:")]
    assert "\n".join(document for part in parts for document in part).split("\n") == whole


def test_compressed_text_is_the_same(directory):
    content = (directory / "text.txt").read_bytes()
    with gzip.open(directory / "other.txt.gz", "wb") as file:
        file.write(content)
    assert read_documents(directory, "other") == read_documents(directory, "text")


def write_table(directory, content):
    (directory / "train.tsv").write_text(content, encoding="utf-8")


def test_a_table_has_the_class_in_either_column(tmp_path):
    expected = [LabelledText("good film", 1), LabelledText("bad", 0)]
    write_table(tmp_path, "pos\t good film\nneg\tbad\n")
    classes = ("neg", "pos")
    assert read_labelled_texts(tmp_path, "train", classes, label_first=True) == expected
    write_table(tmp_path, "good film\tpos\nbad\tneg \n")
    assert read_labelled_texts(tmp_path, "train", classes, label_first=False) == expected


def test_two_files_are_as_a_table(tmp_path):
    (tmp_path / "dev.text").write_text("good film\nbad\n")
    (tmp_path / "dev.label").write_text("pos\nneg\n")
    config = DataConfig(
        kind="text", dataset=tmp_path.name, data_dir=str(tmp_path.parent), classes=("neg", "pos")
    )
    assert load_labelled_texts(config, "dev") == [
        LabelledText("good film", 1),
        LabelledText("bad", 0),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "a\tgood\nc\tbad\n",
            r"train\.tsv must hold the classes of data\.classes \(a, b\), got 'c'",
        ),
        ("a\tgood\na bad\n", r"two columns, .* got 1 in line 2"),
        ("a\tgood\na\t \n", r"a text in every line, got none in line 2"),
        ("", "must hold texts, got no line"),
    ],
)
def test_a_damaged_table_is_refused_with_the_line(tmp_path, content, message):
    write_table(tmp_path, content)
    with pytest.raises(InputError, match=message) as error:
        read_labelled_texts(tmp_path, "train", ("a", "b"), label_first=True)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("none", r"none\.txt must exist"),
        ("text[0:1]", r"text\.txt must hold text in text\[0:1\], got none"),
        ("text[x:]", r"must be given as stem\[10%:20%\]"),
    ],
)
def test_missing_text_is_refused(directory, split, message):
    config = DataConfig(kind="text", dataset=directory.name, data_dir=str(directory.parent))
    with pytest.raises(InputError, match=message):
        load_documents(config, split)


def test_files_without_partner_or_of_other_length_are_refused(tmp_path):
    (tmp_path / "dev.text").write_text("good film\nbad\n")
    with pytest.raises(InputError, match=r"dev\.tsv must exist, or dev\.text and dev\.label"):
        read_labelled_texts(tmp_path, "dev", ("a",), label_first=True)
    (tmp_path / "dev.label").write_text("a\n")
    with pytest.raises(InputError, match="as many lines as each other, got 2 and 1"):
        read_labelled_texts(tmp_path, "dev", ("a",), label_first=True)


def test_classes_must_differ():
    with pytest.raises(InputError, match="classes must differ"):
        DataConfig(kind="text", classes=("a", "a"))
