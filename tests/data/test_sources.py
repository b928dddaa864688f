import gzip
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest
import tensorflow_datasets as tfds

from flax_transformer.data.sentence_pair import SentencePair, clean_text
from flax_transformer.data.sources import DataConfig, describe_direction, load_sentence_pairs
from flax_transformer.data.tfds_source import TfdsSentencePairs
from flax_transformer.errors import InputError


class TinyPairs(tfds.core.GeneratorBasedBuilder):
    """Numbered sentences in German and English."""

    VERSION = tfds.core.Version("1.2.0")

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.Translation(languages=("de", "en"))
        return tfds.core.DatasetInfo(builder=self, features=features)

    def _split_generators(self, dl_manager: object) -> dict[str, Iterator]:
        sizes = {"train": 4007, "validation": 7}
        return {split: self._generate_examples(size) for split, size in sizes.items()}

    def _generate_examples(self, size: int) -> Iterator:
        for number in range(size):
            yield number, {"de": f" Straße {number}\t", "en": f"Street {number}"}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    builder = TinyPairs(data_dir=tmp_path_factory.mktemp("tfds"))
    builder.download_and_prepare(file_format="array_record")
    return Path(builder.data_dir)


@pytest.fixture
def damageable(prepared: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "tiny_pairs/1.2.0"
    copy.mkdir(parents=True)
    for path in prepared.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    return copy


def tiny(directory: Path, source: str = "de", target: str = "en") -> DataConfig:
    return DataConfig(dataset=str(directory), source_language=source, target_language=target)


def text_config(root: Path, **changes: object) -> DataConfig:
    values: dict = {"kind": "text", "dataset": "set", "data_dir": str(root), **changes}
    return DataConfig(source_language="en", target_language="de", **values)


def write(root: Path, name: str, content: bytes) -> None:
    path = root / "set" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)


# TFDS


def test_a_prepared_directory_is_read_in_both_directions(prepared: Path) -> None:
    forwards = load_sentence_pairs(tiny(prepared), "train")
    backwards = load_sentence_pairs(tiny(prepared, "en", "de"), "train")
    assert len(forwards) == 4007
    assert [SentencePair(*reversed(pair)) for pair in forwards[:5]] == backwards[:5]
    number = forwards[11].target.removeprefix("Street ")
    assert forwards[11] == (f"Straße {number}", f"Street {number}")


def test_a_dataset_is_read_by_name(prepared: Path) -> None:
    config = DataConfig(
        dataset="tiny_pairs",
        data_dir=str(prepared.parent.parent),
        source_language="de",
        target_language="en",
    )
    assert list(load_sentence_pairs(config, "validation")) == list(
        load_sentence_pairs(tiny(prepared), "validation")
    )


def test_sub_splits_are_a_partition(prepared: Path) -> None:
    parts = [load_sentence_pairs(tiny(prepared), f"train[{part}]") for part in (":90%", "90%:")]
    assert [len(part) for part in parts] == [3606, 401]
    whole = load_sentence_pairs(tiny(prepared), "train")
    assert [*parts[0], *parts[1]] == list(whole)
    both = load_sentence_pairs(tiny(prepared), "train+validation")
    assert len(both) == 4007 + 7


def test_the_pairs_are_a_sequence_that_pickles(prepared: Path) -> None:
    pairs = load_sentence_pairs(tiny(prepared), "validation")
    copy = pickle.loads(pickle.dumps(pairs))
    assert list(copy) == list(pairs) == pairs[:]
    assert pairs[-1] == pairs[6]
    assert pairs[1:6:2] == [pairs[1], pairs[3], pairs[5]]
    for index in (7, -8):
        with pytest.raises(IndexError):
            pairs[index]


def test_bytes_and_str_give_the_same_pair() -> None:
    kinds = ["ä\tb", "ä\tb".encode()]
    options = {"name": "x train", "source_language": "de", "target_language": "en"}
    pairs = [TfdsSentencePairs([{"de": text, "en": text}], **options)[0] for text in kinds]
    assert pairs[0] == pairs[1] == ("ä b", "ä b")


@pytest.mark.parametrize(
    "record", [None, {"de": "x"}, {"de": "x", "en": 3}, {"de": b"\xff", "en": b""}]
)
def test_a_damaged_record_is_named_by_split_and_index(record: object) -> None:
    good = {"de": "x", "en": "y"}
    pairs = TfdsSentencePairs(
        [good, record], name="set train", source_language="de", target_language="en"
    )
    assert pairs[0] == ("x", "y")
    with pytest.raises(InputError, match=r"set train .* at index 1 "):
        pairs[1]


@pytest.mark.parametrize("length", [0, 1000, 65_536, 65_537, 100_000])
def test_a_cut_file_is_refused(damageable: Path, length: int) -> None:
    file = next(damageable.glob("*train.array_record*"))
    content = file.read_bytes()
    assert len(content) > 100_000
    file.write_bytes(content[:length])
    with pytest.raises(InputError, match=r"train.*(must hold 4007 records|must be|damaged)"):
        list(load_sentence_pairs(tiny(damageable), "train"))


def test_a_missing_file_is_refused(damageable: Path) -> None:
    next(damageable.glob("*train.array_record*")).unlink()
    with pytest.raises(InputError, match=r"train.*(readable|whole)"):
        load_sentence_pairs(tiny(damageable), "train")


def test_a_wrong_count_in_dataset_info_is_found(damageable: Path) -> None:
    info = damageable / "dataset_info.json"
    info.write_text(info.read_text().replace('"4007"', '"4013"'))
    with pytest.raises(InputError, match=r"must hold 4013 records .* got 4007"):
        load_sentence_pairs(tiny(damageable), "train")


def test_a_damaged_description_is_refused(damageable: Path) -> None:
    (damageable / "dataset_info.json").write_text("{")
    with pytest.raises(InputError, match=r"must be a prepared dataset, .* cannot read"):
        load_sentence_pairs(tiny(damageable), "train")


@pytest.mark.parametrize(
    ("file_format", "remedy"),
    [("tfrecord", "--data-dir NEW_DIR --convert-from {}, and"), ("parquet", "NEW_DIR, and")],
)
def test_another_format_is_refused_with_the_command_that_helps(
    damageable: Path, file_format: str, remedy: str
) -> None:
    info = damageable / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', f'"{file_format}"'))
    with pytest.raises(InputError, match=remedy.format(damageable)):
        load_sentence_pairs(tiny(damageable), "train[:10]")


@pytest.mark.parametrize("split", ["dev", "train[:10%", "train[5000:]", "train[:0]"])
def test_an_impossible_split_is_refused(prepared: Path, split: str) -> None:
    with pytest.raises(InputError, match="split must"):
        load_sentence_pairs(tiny(prepared), split)


@pytest.mark.parametrize(
    ("dataset", "message"),
    [
        (
            "wmt14_translat/de-en",
            r"got 'wmt14_translat/de-en'. The nearest name is 'wmt14_translate'",
        ),
        ("wmt14_translate/xx-en", r"got 'wmt14_translate/xx-en': .*xx-en"),
        (
            "wmt14_translate/de-en",
            r"Run: flax-transformer prepare wmt14_translate/de-en --data-dir",
        ),
        ("mnist", r"must have pairs of sentences .* got 'mnist' with FeaturesDict"),
        ("./nowhere", r"must be a TFDS name or a directory that holds dataset_info.json"),
    ],
)
def test_a_dataset_that_is_not_there_is_refused_with_the_remedy(
    tmp_path: Path, dataset: str, message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_sentence_pairs(DataConfig(dataset=dataset, data_dir=str(tmp_path)), "train")
    assert "\n" not in str(caught.value)


def test_a_language_that_the_dataset_has_not_is_refused(prepared: Path) -> None:
    with pytest.raises(InputError, match=r"two of de, en \(tiny_pairs\), got 'fr'"):
        load_sentence_pairs(tiny(prepared, "fr"), "train")


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


def test_invalid_utf8_is_refused_with_file_and_line(tmp_path: Path) -> None:
    write(tmp_path, "train.en", b"a\nb\n")
    write(tmp_path, "train.de", b"a\nStra\xdfe\n")
    with pytest.raises(InputError, match=r"train.de must be UTF-8, got byte 0xdf in line 2"):
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
