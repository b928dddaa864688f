"""Sentence pairs from TFDS datasets, whole and damaged."""

import pickle
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest
import tensorflow_datasets as tfds
from tiny_corpus import make_batches

from flax_transformer.data.fingerprint import digest_all_pairs
from flax_transformer.data.sentence_pair import SentencePair
from flax_transformer.data.sources import DataConfig, load_sentence_pairs
from flax_transformer.data.tfds_source import RecordRange, TfdsSentencePairs, locate_record
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
    builder.download_and_prepare(
        file_format="array_record", download_config=tfds.download.DownloadConfig(num_shards=3)
    )
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


def test_digests_are_those_of_the_files_and_of_what_is_taken(damageable: Path) -> None:
    configs = [tiny(damageable), tiny(damageable, "en", "de")]
    splits = ["train", "train[:50%]", "train[50%:]", "validation"]

    def digests() -> list[str]:
        return [
            digest_all_pairs(load_sentence_pairs(config, split))
            for config in configs
            for split in splits
        ]

    before = digests()
    assert len(set(before)) == 8
    assert digests() == before
    # An unused byte of the last block: no pair is other than before, but the file is.
    path = min(damageable.glob("*validation*"))
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert [old == new for old, new in zip(before, digests(), strict=True)] == [
        *[True] * 3,
        False,
    ] * 2


def test_pairs_that_are_in_no_file_have_digests_of_their_own() -> None:
    corpora = [
        TfdsSentencePairs(
            [{"de": text, "en": text}], name="mock", source_language="de", target_language="en"
        )
        for text in ("eins", "zwei")
    ]
    assert digest_all_pairs(corpora[0]) != digest_all_pairs(corpora[1])


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


def test_a_pair_is_decoded_once() -> None:
    read: list[int] = []

    class Examples(list[dict[str, bytes | str]]):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    examples = Examples({"de": f"x{number}", "en": f"y{number}"} for number in range(3))
    pairs = TfdsSentencePairs(examples, name="x", source_language="de", target_language="en")
    assert [pairs[index] for index in (2, 0, -1, 2)] == [pairs[2], pairs[0], pairs[2], pairs[2]]
    assert list(pairs) == pairs[:]
    assert sorted(read) == [0, 1, 2]


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


def middle_shard(directory: Path) -> Path:
    (shard,) = directory.glob("*train.array_record-00001-of-00003")
    return shard


@pytest.mark.parametrize("length", [0, 1000, 65_536, 65_537, 100_000])
def test_a_cut_file_is_refused(damageable: Path, length: int) -> None:
    shard = middle_shard(damageable)
    content = shard.read_bytes()
    assert len(content) > 100_000
    shard.write_bytes(content[:length])
    with pytest.raises(InputError, match=rf"{shard} must (hold 1335 records|be a whole)"):
        load_sentence_pairs(tiny(damageable), "train")


def test_a_missing_file_is_refused(damageable: Path) -> None:
    shard = middle_shard(damageable)
    shard.unlink()
    with pytest.raises(InputError, match=rf"{shard} must be a whole"):
        load_sentence_pairs(tiny(damageable), "train")


@pytest.mark.parametrize("damage", ["flipped", "zeroed"])
@pytest.mark.parametrize("split", ["train", "validation+train[10%:]"])
def test_a_damaged_record_is_named_by_file_and_number(
    damageable: Path, damage: str, split: str
) -> None:
    whole = load_sentence_pairs(tiny(damageable), split)[:]
    shard = middle_shard(damageable)
    content = bytearray(shard.read_bytes())
    if damage == "flipped":
        content[5000] ^= 1
    else:
        content[70_000:70_400] = bytes(400)
    shard.write_bytes(content)
    pairs = load_sentence_pairs(tiny(damageable), split)
    readable, damaged = 0, []
    for index in range(len(pairs)):
        try:
            assert pairs[index] == whole[index]
            readable += 1
        except InputError as error:
            damaged.append((index, str(error)))
    assert readable > len(whole) // 2
    assert damaged
    # Where the middle file begins: after the first, of which the second split leaves out 10 %.
    first = {"train": 1336, "validation+train[10%:]": 7 + 1336 - 401}[split]
    for index, message in damaged:
        assert f"at index {index}, which is record {index - first} of {shard} (" in message
        assert "\n" not in message


def test_a_damaged_file_ends_the_batches_with_its_name(
    damageable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in a corpus of which not all stays in memory.
    monkeypatch.setattr("flax_transformer.data.tfds_source._NUM_KEPT", 0)
    shard = middle_shard(damageable)
    content = bytearray(shard.read_bytes())
    pairs = load_sentence_pairs(tiny(damageable), "train")
    batches = make_batches("packed", pairs=pairs)
    content[70_000:70_400] = bytes(400)
    shard.write_bytes(content)
    with pytest.raises(InputError, match=rf"at index \d+, which is record \d+ of {shard} "):
        list(islice(batches, 1000))


def test_records_are_found_in_their_files() -> None:
    ranges = [RecordRange("a", 3, 2), RecordRange("b", 0, 4), RecordRange("a", 0, 1)]
    found = [locate_record(ranges, index) for index in range(7)]
    assert found == [("a", 3), ("a", 4), ("b", 0), ("b", 1), ("b", 2), ("b", 3), ("a", 0)]


def test_a_wrong_count_in_dataset_info_is_found(damageable: Path) -> None:
    info = damageable / "dataset_info.json"
    info.write_text(info.read_text().replace('"1335"', '"1341"'))
    match = rf"{middle_shard(damageable)} must hold 1341 records .* got 1335"
    with pytest.raises(InputError, match=match):
        load_sentence_pairs(tiny(damageable), "train")


def test_mock_data_gives_the_pairs_that_files_would_give(prepared: Path) -> None:
    # TFDS's mock data are str, and what files hold is bytes.
    with tfds.testing.mock_data(num_examples=5):
        mocked = TinyPairs(data_dir=prepared.parent.parent).as_data_source("train")
    texts = [mocked[index] for index in range(5)]
    assert all(isinstance(text, str) for example in texts for text in example.values())
    encoded = [{name: text.encode() for name, text in example.items()} for example in texts]
    options = {"name": "x train", "source_language": "de", "target_language": "en"}
    assert list(TfdsSentencePairs(texts, **options)) == list(TfdsSentencePairs(encoded, **options))


def test_a_slice_of_parquet_files_is_refused(tmp_path: Path) -> None:
    # TFDS itself would give more than the slice.
    builder = TinyPairs(data_dir=tmp_path)
    builder.download_and_prepare(file_format="parquet")
    assert len(builder.as_data_source("train[:10]")) > 10
    with pytest.raises(InputError, match=r"must be in the array_record format, got parquet"):
        load_sentence_pairs(tiny(Path(builder.data_dir)), "train[:10]")


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


def test_a_part_without_examples_is_refused(prepared: Path) -> None:
    with pytest.raises(InputError, match=r"train\[10:5\] must hold examples, got none"):
        load_sentence_pairs(tiny(prepared), "train[10:5]")
