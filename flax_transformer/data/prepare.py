"""Download, extract and prepare TFDS translation datasets, without TensorFlow.

TFDS itself downloads without TensorFlow, but extracts with it; here a download manager of our own
extracts (see ``archives``), removes a file whose checksum is wrong, and leaves the rest to TFDS.
"""

import contextlib
import fcntl
import functools
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import promise
import tensorflow_datasets as tfds
from tqdm import tqdm

from flax_transformer.data.archives import ArchiveKind, extract_archive
from flax_transformer.data.tfds_builders import (
    check_random_access,
    is_prepared,
    make_builder,
    name_of,
)
from flax_transformer.errors import InputError, one_line

_KINDS: dict[str, ArchiveKind] = {
    "TAR": "tar",
    "TAR_GZ": "tar",
    "TAR_STREAM": "tar",
    "TAR_GZ_STREAM": "tar",
    "ZIP": "zip",
    "GZIP": "gzip",
    "BZIP2": "bzip2",
}


class PreparedDataset(NamedTuple):
    """Where a prepared dataset lies, and the number of sentence pairs of each split."""

    name: str
    directory: Path
    num_pairs: dict[str, int]


def prepare_dataset(name: str, data_dir: Path) -> PreparedDataset:
    """Download, extract and prepare a TFDS translation dataset, unless it is there already.

    The dataset appears whole or not at all. Of several processes one prepares and the others wait.
    Progress is shown on standard error.

    Args:
        name: TFDS name, such as "wmt14_translate/de-en".
        data_dir: where TFDS keeps datasets; the downloads go to ``downloads`` in it.

    Raises:
        InputError: there is no such dataset, a download fails or has a wrong checksum, an archive
            is damaged or hostile, or the dataset is there in a format that must be converted.
    """
    builder = make_builder(name, data_dir)
    if not is_prepared(builder):
        with _locked(data_dir, name_of(builder)):
            builder = make_builder(name, data_dir)  # another process may have prepared it meanwhile
            if not is_prepared(builder):
                _download_and_prepare(builder)
                builder = make_builder(name, data_dir)
    check_random_access(builder)
    return describe_prepared(builder)


def describe_prepared(builder: tfds.core.DatasetBuilder) -> PreparedDataset:
    """Return where the dataset of a builder lies, and its splits."""
    num_pairs = {split: info.num_examples for split, info in builder.info.splits.items()}
    return PreparedDataset(name_of(builder), Path(builder.data_dir), num_pairs)


class _Extractor:
    """Extracts for TFDS's download manager, in place of TFDS's own extractor."""

    @contextlib.contextmanager
    def tqdm(self) -> Iterator[None]:
        """Do nothing: each extraction has a progress bar of its own."""
        yield

    def extract(
        self, path: Path, method: tfds.download.ExtractMethod, to_path: Path
    ) -> promise.Promise:
        """Extract ``path`` to ``to_path``; the promise is fulfilled already."""
        bar = tqdm(desc=f"Extracting {Path(path).name}", unit="B", unit_scale=True, disable=None)
        with bar:
            extract_archive(Path(path), Path(to_path), _KINDS[method.name], progress=bar.update)
        return promise.Promise.resolve(to_path)


class _DownloadManager(tfds.download.DownloadManager):
    """TFDS's download manager, with our extractor, and with wrong files removed."""

    _extractor = _Extractor()

    def _register_or_validate_checksums(self, *, url: str, url_info: Any, path: Path) -> None:
        expected = self._url_infos.get(url)
        if expected and expected != url_info:
            Path(path).unlink(missing_ok=True)
            raise InputError(
                f"the download of {url} must have {expected.size} and the SHA-256 "
                f"{expected.checksum}, got {url_info.size} and {url_info.checksum}; the file was "
                "removed. Try again later, or see whether the dataset has moved."
            )
        super()._register_or_validate_checksums(url=url, url_info=url_info, path=path)


def _make_download_manager(
    builder: tfds.core.DatasetBuilder, download_dir: None, download_config: Any
) -> _DownloadManager:
    """Stand in for the method of this name of ``builder``."""
    del download_dir, download_config  # left at their defaults
    downloads = Path(builder.data_dir_root) / "downloads"
    return _DownloadManager(
        download_dir=downloads,
        extract_dir=downloads / "extracted",
        manual_dir=downloads / "manual",
        manual_dir_instructions=builder.MANUAL_DOWNLOAD_INSTRUCTIONS,
        url_infos=builder.url_infos,
        dataset_name=builder.name,
        max_simultaneous_downloads=builder.MAX_SIMULTANEOUS_DOWNLOADS,
    )


def _download_and_prepare(builder: tfds.core.DatasetBuilder) -> None:
    builder._make_download_manager = functools.partial(_make_download_manager, builder)
    config = tfds.download.DownloadConfig(try_download_gcs=False)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    try:
        # TFDS prints notices; standard output is left to results.
        with contextlib.redirect_stdout(sys.stderr):
            builder.download_and_prepare(download_config=config, file_format="array_record")
    except InputError:
        raise
    except ModuleNotFoundError as error:
        raise InputError(
            f"{name_of(builder)} needs {error.name} to be prepared, which is not installed. "
            'Run: pip install "flax-transformer[tf]"'
        ) from None
    except Exception as error:  # of the network, the disk, or one of some hundred builders
        raise InputError(f"{name_of(builder)} could not be prepared: {one_line(error)}") from None


@contextlib.contextmanager
def _locked(data_dir: Path, name: str) -> Iterator[None]:
    """Hold the lock of one dataset; it goes with the process, also when that is killed."""
    lock_file = data_dir / f".{name.replace('/', '.')}.lock"
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = lock_file.open("w")
    except OSError as error:
        raise InputError(f"data_dir must be writable, got {data_dir}: {error.strerror}.") from None
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
