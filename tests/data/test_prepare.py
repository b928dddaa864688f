"""Prepare datasets from archives of the shape of WMT's, served on loopback.

Each runs in a process of its own, to see that TensorFlow stays out.
"""

import functools
import hashlib
import http.server
import io
import json
import os
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flax_transformer.data.convert_tfrecord import convert_tfrecord
from flax_transformer.errors import InputError

# A builder as TFDS has them for each year of WMT, for archives on loopback.
_BUILDER = '''
import json
import sys
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import checksums
from tensorflow_datasets.translate import wmt
from flax_transformer.cli import prepare
from flax_transformer.data.sources import DataConfig, load_sentence_pairs
from flax_transformer.errors import InputError

url, data_dir, sha256, size = sys.argv[1:]

def subset(name, archive, source, target):
    wmt.DATASET_MAP[name] = wmt.SubDataset(
        name=name, target="en", sources={"de"}, url=f"{url}/{archive}", path=(source, target)
    )

subset("corpus", "train.tgz", "training/corpus.{src}-en.{src}", "training/corpus.{src}-en.en")
subset("news", "dev.tgz", "dev/news-{src}en-src.{src}.sgm", "dev/news-{src}en-ref.en.sgm")

class LoopbackTranslate(wmt.WmtTranslate):
    """WMT on loopback."""

    BUILDER_CONFIGS = [
        wmt.WmtConfig(
            language_pair=("de", "en"),
            subsets={tfds.Split.TRAIN: ["corpus"], tfds.Split.VALIDATION: ["news"]},
            version=tfds.core.Version("1.0.0"),
        )
    ]
    if sha256:
        url_infos = {
            f"{url}/train.tgz": checksums.UrlInfo(
                size=tfds.core.utils.Size(int(size)), checksum=sha256, filename="train.tgz"
            )
        }

import argparse
parser = argparse.ArgumentParser()
prepare.add_arguments(parser)
arguments = parser.parse_args(["loopback_translate/de-en", "--data-dir", data_dir])
try:
    prepare.run(arguments)
    config = DataConfig(
        dataset="loopback_translate/de-en",
        source_language="en",
        target_language="de",
        data_dir=data_dir,
    )
    for split in ("train", "validation"):
        print(json.dumps(sorted(load_sentence_pairs(config, split))))
except InputError as error:
    print("error:", error)
assert "tensorflow" not in sys.modules
'''

TRAIN = {
    "training/corpus.de-en.de": "Das Haus.\nDer Hund\u2028bellt.\n\nEin Buch & eine Tür.\n",
    "training/corpus.de-en.en": "The house.\nThe dog barks.\n\nA book & a door.\n",
}
DEV = {
    "dev/news-deen-src.de.sgm": '<doc>\n<seg id="1">Guten Tag &amp; Weg </seg>\n</doc>\n',
    "dev/news-deen-ref.en.sgm": '<doc>\n<seg id="1">Good day &amp; way</seg>\n</doc>\n',
}


def pack(path: Path, files: dict[str, str]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(text.encode())
            tar.addfile(info, io.BytesIO(text.encode()))


class _Server(http.server.ThreadingHTTPServer):
    requests: list[str]


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        assert isinstance(self.server, _Server)
        self.server.requests.append(self.path)


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Path, _Server]]:
    directory = tmp_path / "served"
    directory.mkdir()
    pack(directory / "train.tgz", TRAIN)
    pack(directory / "dev.tgz", DEV)
    handler = functools.partial(_Handler, directory=str(directory))
    with _Server(("127.0.0.1", 0), handler) as server:
        server.requests = []
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield directory, server
        server.shutdown()
        thread.join()


def prepare(server: _Server, data_dir: Path, sha256: str = "", size: int = 0) -> list[str]:
    """Run the command on the dataset of the server; return what it prints."""
    url = f"http://127.0.0.1:{server.server_address[1]}"
    result = subprocess.run(
        [sys.executable, "-c", _BUILDER, url, str(data_dir), sha256, str(size)],
        env={**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_archives_of_the_shape_of_wmt_are_prepared_without_tensorflow(
    served: tuple[Path, _Server], tmp_path: Path
) -> None:
    directory, server = served
    archive = (directory / "train.tgz").read_bytes()
    sha256, size = hashlib.sha256(archive).hexdigest(), len(archive)
    printed = prepare(server, tmp_path / "data", sha256, size)
    where = tmp_path / "data/loopback_translate/de-en/1.0.0"
    assert printed[:3] == [
        f"loopback_translate/de-en is prepared in {where}",
        "train: 3 pairs",
        "validation: 1 pairs",
    ]
    assert json.loads(printed[3]) == [
        ["A book & a door.", "Ein Buch & eine Tür."],
        ["The dog barks.", "Der Hund bellt."],
        ["The house.", "Das Haus."],
    ]
    assert json.loads(printed[4]) == [["Good day &amp; way", "Guten Tag &amp; Weg"]]
    assert sorted(server.requests) == ["/dev.tgz", "/train.tgz"]
    assert prepare(server, tmp_path / "data", sha256, size) == printed
    assert len(server.requests) == 2, "what is prepared is not downloaded again"


def test_a_wrong_checksum_is_refused_and_the_file_removed(
    served: tuple[Path, _Server], tmp_path: Path
) -> None:
    (printed,) = prepare(served[1], tmp_path / "data", sha256="0" * 64, size=1)
    assert "train.tgz must have 1 bytes and the SHA-256 0000" in printed
    assert "the file was removed" in printed
    downloads = tmp_path / "data/downloads"
    assert not [path for path in downloads.rglob("*train*") if path.is_file()]
    assert not list((tmp_path / "data").rglob("dataset_info.json"))


def test_a_hostile_archive_is_refused_and_nothing_is_written_outside(
    served: tuple[Path, _Server], tmp_path: Path
) -> None:
    directory, server = served
    pack(directory / "train.tgz", {**TRAIN, "../../../../../../evil": "evil"})
    (printed,) = prepare(server, tmp_path / "data")
    assert "must stay within its folder, got an entry named '../../" in printed
    assert not list(tmp_path.rglob("evil*"))
    assert not list((tmp_path / "data").rglob("dataset_info.json"))


def test_a_failed_download_ends_in_one_line_and_can_be_repeated(
    served: tuple[Path, _Server], tmp_path: Path
) -> None:
    directory, server = served
    (directory / "dev.tgz").rename(tmp_path / "away")
    (printed,) = prepare(server, tmp_path / "data")
    assert printed.startswith("error: loopback_translate/de-en could not be prepared:")
    assert "404" in printed
    (tmp_path / "away").rename(directory / "dev.tgz")
    assert "train: 3 pairs" in prepare(server, tmp_path / "data")


def test_conversion_without_tensorflow_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_description(tmp_path / "old", "tfrecord")
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(InputError, match=r'pip install "flax-transformer\[tf\]"'):
        convert_tfrecord("pairs", source, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_only_tfrecord_copies_are_converted_and_only_to_a_new_place(tmp_path: Path) -> None:
    source = write_description(tmp_path / "old", "array_record")
    with pytest.raises(InputError, match="must be a TFRECORD copy, got array_record"):
        convert_tfrecord("pairs", source, tmp_path / "new")
    with pytest.raises(InputError, match=r"must hold a prepared dataset, got no dataset_info.json"):
        convert_tfrecord("pairs", tmp_path, tmp_path / "new")
    source = write_description(tmp_path / "other", "tfrecord")
    with pytest.raises(InputError, match="data_dir must be a directory without pairs"):
        convert_tfrecord("pairs", source, tmp_path / "other")


def test_a_tfrecord_copy_is_converted(tmp_path: Path) -> None:
    tensorflow = pytest.importorskip("tensorflow", reason="needs the extra [tf]")
    from flax_transformer.data.tfds_source import load_tfds_pairs

    source = write_description(tmp_path / "old", "tfrecord")
    with tensorflow.io.TFRecordWriter(str(source / "pairs-train.tfrecord-00000-of-00001")) as file:
        for number in range(3):
            feature = {
                language: tensorflow.train.Feature(
                    bytes_list=tensorflow.train.BytesList(value=[f"{language} {number}".encode()])
                )
                for language in ("de", "en")
            }
            example = tensorflow.train.Example(features=tensorflow.train.Features(feature=feature))
            file.write(example.SerializeToString())
    prepared = convert_tfrecord("pairs", source, tmp_path / "new")
    assert prepared.num_pairs == {"train": 3}
    pairs = load_tfds_pairs(
        "pairs", "train", source_language="de", target_language="en", data_dir=tmp_path / "new"
    )
    assert list(pairs) == [(f"de {number}", f"en {number}") for number in range(3)]


def write_description(data_dir: Path, file_format: str) -> Path:
    """Write the description of a prepared dataset with three pairs, but not its records."""
    directory = data_dir / "pairs/1.0.0"
    directory.mkdir(parents=True)
    info = {
        "name": "pairs",
        "version": "1.0.0",
        "fileFormat": file_format,
        "splits": [
            {
                "name": "train",
                "numBytes": "99",
                "shardLengths": ["3"],
                "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
            }
        ],
    }
    features = {
        "pythonClassName": "tensorflow_datasets.core.features.translation_feature.Translation",
        "translation": {"languages": ["de", "en"]},
    }
    (directory / "dataset_info.json").write_text(json.dumps(info))
    (directory / "features.json").write_text(json.dumps(features))
    return directory
