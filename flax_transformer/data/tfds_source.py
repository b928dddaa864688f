"""TFDS datasets as random-access sequences of sentence pairs, read without TensorFlow."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple, overload

import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordReader

from flax_transformer.data import en_pt_sentences
from flax_transformer.data.prepare import prepare_dataset
from flax_transformer.data.sentence_pair import SentencePair, clean_text
from flax_transformer.data.tfds_builders import (
    check_random_access,
    is_prepared,
    languages_of,
    make_builder,
    name_of,
)
from flax_transformer.errors import InputError, one_line

_NUM_KEPT = 1 << 16
"""Pairs that stay in memory: of sentences some 30 MB."""


class RecordRange(NamedTuple):
    """``size`` records of a file, from number ``start``, which follow each other in a split."""

    file: str
    start: int
    size: int


def locate_record(ranges: Sequence[RecordRange], index: int) -> tuple[str, int]:
    """Return the file, and the number in it, of record ``index`` of a split.

    >>> locate_record([RecordRange("a", 10, 3), RecordRange("b", 0, 2)], 4)
    ('b', 1)
    """
    for file, start, size in ranges:
        if index < size:
            return file, start + index
        index -= size
    raise IndexError(f"the files have no record {index} beyond their last")


class TfdsSentencePairs(Sequence[SentencePair]):
    """The sentence pairs of one split, decoded when they are asked for.

    Of a small corpus they stay decoded: it is read for its vocabulary and again for its tokens.
    ``examples`` yields one dictionary per index, from language code to text (bytes or str);
    ``ranges`` says where the records lie, if in files.
    """

    def __init__(
        self,
        examples: Sequence[dict[str, bytes | str]],
        *,
        name: str,
        source_language: str,
        target_language: str,
        ranges: Sequence[RecordRange] = (),
    ) -> None:
        self._examples = examples
        self._ranges = tuple(ranges)
        self._name = name
        self._source_language = source_language
        self._target_language = target_language
        self._decoded: dict[int, SentencePair] = {}

    def __len__(self) -> int:
        return len(self._examples)

    @overload
    def __getitem__(self, index: int) -> SentencePair: ...
    @overload
    def __getitem__(self, index: slice) -> list[SentencePair]: ...
    def __getitem__(self, index: int | slice) -> SentencePair | list[SentencePair]:
        """Decode a pair, or several."""
        if isinstance(index, slice):
            return [self._pair(position) for position in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self._name} has {len(self)} pairs, got index {index}")
        return self._pair(index % len(self))

    def __iter__(self) -> Iterator[SentencePair]:
        return (self._pair(index) for index in range(len(self)))

    def __repr__(self) -> str:
        languages = f"{self._source_language}-{self._target_language}"
        return f"{type(self).__name__}({self._name}, {languages}, {len(self)} pairs)"

    def digest(self) -> str | None:
        """Return a SHA-256 of the files that hold the pairs, and of what is taken from them.

        None if the pairs are not in files.
        """
        if not self._ranges:
            return None
        parts: list[object] = [self._source_language, self._target_language]
        for file, start, size in self._ranges:
            with Path(file).open("rb") as stream:
                parts += [hashlib.file_digest(stream, "sha256").hexdigest(), start, size]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _pair(self, index: int) -> SentencePair:
        pair = self._decoded.get(index)
        if pair is None:
            pair = self._read_pair(index)
            if len(self._decoded) < _NUM_KEPT:
                self._decoded[index] = pair
        return pair

    def _read_pair(self, index: int) -> SentencePair:
        try:
            example = self._examples[index]
            return SentencePair(
                _decode(example[self._source_language]), _decode(example[self._target_language])
            )
        except Exception as error:  # what a damaged record raises depends on where it breaks
            where = ""
            if self._ranges:
                file, record = locate_record(self._ranges, index)
                where = f", which is record {record} of {file}"
            raise InputError(
                f"{self._name} must have whole records, got a damaged one at index {index}{where} "
                f"({one_line(error)}). Remove the dataset's directory and prepare it again."
            ) from None


def load_tfds_pairs(
    dataset: str,
    split: str,
    *,
    source_language: str,
    target_language: str,
    data_dir: Path,
) -> TfdsSentencePairs:
    """Open a split of a prepared translation dataset.

    Args:
        dataset: TFDS name or prepared directory; the embedded dataset is prepared if need be.
        split: TFDS split expression, such as "train", "train[:90%]" or "train+validation".
        source_language: code of the language that is translated from.
        target_language: code of the language that is translated to.
        data_dir: where datasets that are given by name lie.

    Raises:
        InputError: the dataset is not prepared or not readable at random, has not these languages
            or this split, or its files do not hold what ``dataset_info.json`` says.
    """
    if dataset == en_pt_sentences.NAME:
        prepare_dataset(dataset, data_dir)
    builder = make_builder(dataset, data_dir)
    name = name_of(builder)
    if not is_prepared(builder):
        raise InputError(
            f"dataset must be prepared, got {dataset!r}, which is not in {data_dir}. "
            f"Run: flax-transformer prepare {name} --data-dir {data_dir}"
        )
    check_random_access(builder)
    for language in (source_language, target_language):
        if language not in languages_of(builder):
            raise InputError(
                f"source_language and target_language must be two of "
                f"{', '.join(languages_of(builder))} ({name}), got {language!r}."
            )
    examples = _open_split(builder, split)
    instructions = builder.info.splits[split].file_instructions
    if sum(part.take for part in instructions) <= 0:
        raise InputError(f"{name} {split} must hold examples, got none.")
    _check_files(builder, split, len(examples))
    return TfdsSentencePairs(
        examples,
        ranges=[RecordRange(part.filename, part.skip, part.take) for part in instructions],
        name=f"{name} {split}",
        source_language=source_language,
        target_language=target_language,
    )


def _open_split(builder: tfds.core.DatasetBuilder, split: str) -> Sequence[dict[str, bytes | str]]:
    """Open a split as TFDS's random-access data source."""
    try:
        return builder.as_data_source(split)
    except Exception as error:  # from the split expression, or from the reader of the files
        splits = ", ".join(builder.info.splits)
        raise InputError(
            f"split must be an expression over {splits} with readable files in "
            f"{builder.data_dir}, got {split!r}: {one_line(error)}"
        ) from None


def _check_files(builder: tfds.core.DatasetBuilder, split: str, num_examples: int) -> None:
    """Compare the number of records of each file of a split with ``dataset_info.json``.

    A file that was cut short may open without an error.
    """
    instructions = builder.info.splits[split].file_instructions
    for instruction in instructions:
        expected = instruction.examples_in_shard
        try:
            with closing(ArrayRecordReader(instruction.filename)) as reader:
                found = reader.num_records()
        except Exception as error:
            raise InputError(
                f"{instruction.filename} must be a whole array_record file: {one_line(error)}"
            ) from None
        if found != expected:
            raise InputError(
                f"{instruction.filename} must hold {expected} records (dataset_info.json), got "
                f"{found}. Remove the dataset's directory and prepare it again."
            )
    total = sum(instruction.take for instruction in instructions)
    if num_examples != total or not total:
        raise InputError(f"split must hold sentence pairs, got {num_examples} in {split!r}.")


def _decode(text: bytes | str) -> str:
    """Accept what files hold (bytes) and what TFDS's mock data holds (str)."""
    return clean_text(text.decode("utf-8") if isinstance(text, bytes) else text)
