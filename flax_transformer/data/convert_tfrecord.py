"""Convert TFRECORD copies of TFDS datasets, which need TensorFlow to be read, to array_record.

The one place of the package that uses TensorFlow (the extra ``[tf]``).
"""

import importlib
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from tqdm import tqdm

from flax_transformer.data.prepare import PreparedDataset, describe_prepared
from flax_transformer.data.tfds_builders import make_builder, name_of
from flax_transformer.errors import InputError, one_line

_DATASET_INFO = "dataset_info.json"
# As TFDS writes them: every record can be read by itself.
_WRITER_OPTIONS = "group_size:1"


def convert_tfrecord(name: str, tfrecord_dir: Path, data_dir: Path) -> PreparedDataset:
    """Copy a prepared dataset from TFRECORD files to array_record files.

    The copy goes to ``<data_dir>/<name>/<version>``; those in ``tfrecord_dir`` stay as they are.

    Args:
        name: TFDS name of the dataset, with its configuration.
        tfrecord_dir: directory that holds the ``dataset_info.json`` of the TFRECORD copy.
        data_dir: where TFDS keeps datasets.

    Raises:
        InputError: TensorFlow is missing, there is no TFRECORD copy in ``tfrecord_dir`` or a
            damaged one, or there is something at the destination already.
    """
    if not (tfrecord_dir / _DATASET_INFO).exists():
        raise InputError(f"{tfrecord_dir} must hold a prepared dataset, got no {_DATASET_INFO}.")
    builder = make_builder(str(tfrecord_dir), data_dir)
    if builder.info.file_format != tfds.core.FileFormat.TFRECORD:
        raise InputError(
            f"{tfrecord_dir} must be a TFRECORD copy, got {builder.info.file_format.value}."
        )
    if name_of(builder) != name:
        raise InputError(f"{tfrecord_dir} must hold {name}, got {name_of(builder)}.")
    destination = data_dir / name / str(builder.version)
    if destination.exists():
        raise InputError(
            f"data_dir must be a directory without {name}, got {data_dir}, where {destination} "
            "exists. Choose another with --data-dir."
        )
    tensorflow = _import_tensorflow()
    try:
        _convert(builder, tfrecord_dir, destination, tensorflow)
    except (OSError, tensorflow.errors.OpError) as error:
        raise InputError(f"{tfrecord_dir} could not be converted: {one_line(error)}") from None
    return describe_prepared(make_builder(str(destination), data_dir))


def _import_tensorflow() -> Any:
    try:
        return importlib.import_module("tensorflow")
    except ModuleNotFoundError:
        raise InputError(
            "TFRECORD files need TensorFlow to be read, which is not installed. "
            'Run: pip install "flax-transformer[tf]"'
        ) from None


def _convert(
    builder: tfds.core.DatasetBuilder,
    tfrecord_dir: Path,
    destination: Path,
    tensorflow: Any,
) -> None:
    """Write all files to a temporary directory; move them when the last one is whole."""
    destination.parent.mkdir(parents=True, exist_ok=True)
    holder = Path(tempfile.mkdtemp(prefix=".incomplete-", dir=destination.parent))
    try:
        _convert_files(builder, holder, tensorflow)
        for path in tfrecord_dir.glob("*.json"):
            shutil.copy(path, holder)
        info = json.loads((holder / _DATASET_INFO).read_text(encoding="utf-8"))
        info["fileFormat"] = "array_record"
        (holder / _DATASET_INFO).write_text(json.dumps(info, indent=2), encoding="utf-8")
        holder.chmod(0o755)  # temporary directories are for their owner alone
        holder.rename(destination)
    finally:
        shutil.rmtree(holder, ignore_errors=True)


def _convert_files(builder: tfds.core.DatasetBuilder, directory: Path, tensorflow: Any) -> None:
    """Convert the files of all splits, with a progress bar, and check their numbers of records."""
    splits = builder.info.splits.values()
    total = sum(split.num_examples for split in splits)
    with tqdm(total=total, unit=" pairs", desc="Converting", disable=None) as bar:
        for split in splits:
            for old_path, expected in zip(split.filepaths, split.shard_lengths, strict=True):
                new_path = directory / old_path.name.replace(".tfrecord", ".array_record")
                records = tensorflow.data.TFRecordDataset(str(old_path)).as_numpy_iterator()
                found = _write(new_path, records)
                if found != expected:
                    raise InputError(
                        f"{old_path} must hold {expected} records ({_DATASET_INFO}), got {found}."
                    )
                bar.update(found)


def _write(path: Path, records: Iterator[bytes]) -> int:
    """Write the records to an array_record file and return their number."""
    num_records = 0
    with closing(ArrayRecordWriter(str(path), _WRITER_OPTIONS)) as writer:
        for record in records:
            writer.write(record)
            num_records += 1
    return num_records
