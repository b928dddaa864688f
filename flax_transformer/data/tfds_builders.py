"""TFDS builders of translation datasets: by name, or from a directory that is prepared already."""

import difflib
import os
from pathlib import Path

import tensorflow_datasets as tfds
import tensorflow_datasets.translate  # registers the WMT builders and their like

from flax_transformer.data import en_pt_sentences
from flax_transformer.errors import InputError, one_line

_DATASET_INFO = "dataset_info.json"


def default_data_dir() -> Path:
    """Return where TFDS keeps datasets: ``$TFDS_DATA_DIR``, or ``~/tensorflow_datasets``."""
    return Path(os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets").expanduser()


def make_builder(dataset: str, data_dir: Path) -> tfds.core.DatasetBuilder:
    """Return the builder of a dataset, prepared or not.

    Args:
        dataset: a TFDS name such as "wmt14_translate/de-en", or a directory with a prepared dataset
            (one that holds a ``dataset_info.json``).
        data_dir: where datasets that are given by name lie, or will lie.

    Raises:
        InputError: there is no such dataset, or it is not a translation dataset.
    """
    if (Path(dataset).expanduser() / _DATASET_INFO).exists():
        builder = _builder_from_directory(Path(dataset).expanduser())
    elif dataset.startswith(("/", "./", "../", "~")):
        raise InputError(
            f"dataset must be a TFDS name or a directory that holds {_DATASET_INFO}, "
            f"got {dataset!r}."
        )
    else:
        builder = _builder_by_name(dataset, data_dir)
    if not isinstance(builder.info.features, tfds.features.Translation):
        raise InputError(
            "dataset must have pairs of sentences (tfds.features.Translation), "
            f"got {dataset!r} with {type(builder.info.features).__name__}."
        )
    return builder


def is_prepared(builder: tfds.core.DatasetBuilder) -> bool:
    """Tell whether the dataset of a builder lies, whole, where the builder looks for it."""
    return (Path(builder.data_dir) / _DATASET_INFO).exists()


def check_random_access(builder: tfds.core.DatasetBuilder) -> None:
    """Refuse a prepared dataset that cannot be read at random: it must be in array_record format.

    Raises:
        InputError: it is in another format; the message gives the remedy.
    """
    file_format = builder.info.file_format
    if file_format == tfds.core.FileFormat.ARRAY_RECORD:
        return
    remedy = f"flax-transformer prepare {name_of(builder)} --data-dir NEW_DIR"
    if file_format == tfds.core.FileFormat.TFRECORD:
        remedy += f" --convert-from {builder.data_dir}"
    raise InputError(
        f"{builder.data_dir} must be in the array_record format, got {file_format.value}. "
        f"Run: {remedy}, and use NEW_DIR as data_dir."
    )


def languages_of(builder: tfds.core.DatasetBuilder) -> tuple[str, ...]:
    """Return the codes of the languages of a translation dataset."""
    return tuple(builder.info.features.languages)


def name_of(builder: tfds.core.DatasetBuilder) -> str:
    """Return the TFDS name of a builder, with its configuration and without its version."""
    return str(builder.info.full_name.removesuffix(f"/{builder.version}"))


def _builder_from_directory(directory: Path) -> tfds.core.DatasetBuilder:
    try:
        return tfds.builder_from_directory(directory)
    except Exception as error:  # TFDS lets out whatever its parsers of JSON raise
        raise InputError(
            f"{directory} must be a prepared dataset, got one that TFDS cannot read: "
            f"{one_line(error)}"
        ) from None


def _builder_by_name(name: str, data_dir: Path) -> tfds.core.DatasetBuilder:
    try:
        return tfds.builder(name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        known = [*tfds.list_builders(with_community_datasets=False), en_pt_sentences.NAME]
        near = difflib.get_close_matches(name.split("/")[0], known, n=1)
        hint = f" The nearest name is {near[0]!r}." if near else ""
        raise InputError(
            f"dataset must be a TFDS name or a prepared directory, got {name!r}.{hint}"
        ) from None
    except Exception as error:  # no such configuration or version, damaged files, ...
        raise InputError(
            f"dataset must be one that TFDS can open, got {name!r}: {one_line(error)}"
        ) from None
