"""Where sentence pairs come from, and in which direction they are translated."""

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flax_transformer.data.parallel_text import (
    check_not_empty,
    find_file,
    keep_labelled,
    read_parallel_text,
)
from flax_transformer.data.sentence_pair import SentencePair
from flax_transformer.data.texts import LabelledText, read_documents, read_labelled_texts
from flax_transformer.data.tfds_builders import default_data_dir
from flax_transformer.data.tfds_source import load_tfds_pairs
from flax_transformer.errors import InputError

_LOGGER = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which sentence pairs to train on and to evaluate with.

    ``kind`` "tfds": ``dataset`` is a TFDS name ("wmt14_translate/de-en") or the directory of a
    prepared dataset; ``train``, ``dev`` and ``test`` are split expressions ("train[:90%]");
    ``data_dir`` is by default ``$TFDS_DATA_DIR`` or ``~/tensorflow_datasets``.

    ``kind`` "text": ``dataset`` is a folder below ``data_dir`` (by default
    ``$FLAX_TRANSFORMER_DATA``, else the current directory); ``train``, ``dev`` and ``test`` are
    the stems of files ``<stem>.<language>[.gz]``, or of tables, see :func:`read_parallel_text`.
    With ``labels``, only the lines are kept whose label in ``<stem>.src`` is one of these; a test
    set without such a file is taken whole.

    Texts of one language are of ``kind`` "text". Of running text the files are ``<stem>.txt[.gz]``,
    see :func:`.texts.read_documents`, which can take a part of a file; with ``join_documents``
    documents follow one another as one text, without it none sees another. Of texts with a class
    the files are ``<stem>.tsv[.gz]``, see :func:`.texts.read_labelled_texts`; ``classes`` are the
    names of the classes in the file, and ``label_first`` says which column they are.
    """

    kind: Literal["tfds", "text"] = "tfds"
    dataset: str = "en_pt_sentences"
    source_language: str = "en"
    target_language: str = "pt"
    train: str = "train"
    dev: str = "validation"
    test: str | None = "test"
    data_dir: str | None = None
    labels: tuple[str, ...] = ()
    join_documents: bool = True
    classes: tuple[str, ...] = ()
    label_first: bool = True

    def __post_init__(self) -> None:
        if self.kind not in ("tfds", "text"):
            raise InputError(f"kind must be 'tfds' or 'text', got {self.kind!r}.")
        for name in ("dataset", "source_language", "target_language", "train", "dev"):
            if not getattr(self, name):
                raise InputError(f"{name} must not be empty, got ''.")
        if self.source_language == self.target_language:
            raise InputError(
                "source_language and target_language must differ, "
                f"got {self.source_language!r} for both."
            )
        if self.labels and self.kind == "tfds":
            raise InputError(f"labels must be empty for kind 'tfds', got {self.labels!r}.")
        if len(set(self.classes)) < len(self.classes):
            raise InputError(f"classes must differ from each other, got {self.classes!r}.")


def load_sentence_pairs(config: DataConfig, split: str) -> Sequence[SentencePair]:
    """Load one split: ``config.train``, ``config.dev``, ``config.test`` or any other.

    The pairs of a TFDS dataset are decoded one by one when they are asked for; text files are read
    at once. Pairs with an empty side are kept: the training pipeline drops them, and a test set
    keeps all of its lines.

    Raises:
        InputError: the data is missing, not prepared, damaged or empty.
    """
    if config.kind == "text":
        return _load_text_pairs(config, split)
    return load_tfds_pairs(
        config.dataset,
        split,
        source_language=config.source_language,
        target_language=config.target_language,
        data_dir=Path(config.data_dir).expanduser() if config.data_dir else default_data_dir(),
    )


def load_documents(config: DataConfig, split: str) -> list[str]:
    """Load one split of running text, as documents; errors as :func:`.texts.read_documents`."""
    return read_documents(_find_directory(config), split)


def load_labelled_texts(config: DataConfig, split: str) -> list[LabelledText]:
    """Load one split of texts with a class; errors as :func:`.texts.read_labelled_texts`."""
    return read_labelled_texts(
        _find_directory(config), split, config.classes, label_first=config.label_first
    )


def describe_direction(config: DataConfig) -> str:
    """Return the direction of translation, for people.

    >>> describe_direction(DataConfig(source_language="de", target_language="en"))
    'de → en'
    """
    return f"{config.source_language} → {config.target_language}"


def _find_directory(config: DataConfig) -> Path:
    root = config.data_dir or os.environ.get("FLAX_TRANSFORMER_DATA") or "."
    directory = Path(root).expanduser() / config.dataset
    if not directory.is_dir():
        raise InputError(
            f"dataset must be a folder below data_dir, got {directory}, which is none. "
            "Set data_dir or $FLAX_TRANSFORMER_DATA."
        )
    return directory


def _load_text_pairs(config: DataConfig, split: str) -> list[SentencePair]:
    directory = _find_directory(config)
    pairs = read_parallel_text(directory, split, config.source_language, config.target_language)
    if config.labels:
        label_file = find_file(directory, f"{split}.src")
        if label_file is not None:
            pairs = keep_labelled(pairs, label_file, config.labels)
        elif split == config.test:
            _LOGGER.info("%s has no labels and is taken whole.", directory / split)
        else:
            raise InputError(
                f"{directory / split}.src must exist, because labels are asked for, got no file."
            )
    check_not_empty(pairs, str(directory / split))
    return pairs
