"""Texts for tasks of one language: running text in documents, and texts with a class each."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from flax_transformer.data.parallel_text import find_file, read_lines
from flax_transformer.data.sentence_pair import clean_text
from flax_transformer.errors import InputError

_SLICE = re.compile(r"(?P<stem>.+)\[(?P<start>\d+%?)?:(?P<stop>\d+%?)?\]")


class LabelledText(NamedTuple):
    """A text and the number of its class, from 0."""

    text: str
    label: int


def read_documents(directory: Path, split: str) -> list[str]:
    """Read ``<stem>.txt[.gz]``, UTF-8; blank lines divide it into documents.

    Args:
        directory: where the file lies.
        split: the stem of its name, or a part of the file, by its lines, as TFDS has it:
            ``stem[:90%]``, ``stem[500:1000]``.

    Raises:
        InputError: the file is missing or damaged, or there is no text in that part.
    """
    stem, start, stop = parse_split(split)
    path = find_file(directory, f"{stem}.txt")
    if path is None:
        raise InputError(f"{directory / stem}.txt must exist (or with .gz), got no such file.")
    lines = read_lines(path)
    documents: list[list[str]] = [[]]
    for line in lines[_line_number(start, len(lines)) : _line_number(stop, len(lines))]:
        if line.strip():
            documents[-1].append(line)
        elif documents[-1]:
            documents.append([])
    if not documents[0]:
        raise InputError(f"{path} must hold text in {split}, got none.")
    return ["\n".join(document) for document in documents if document]


def parse_split(split: str) -> tuple[str, str, str]:
    """Return the stem of a file, and the first and the last line of a part of it.

    >>> parse_split("letters[90%:]")
    ('letters', '90%', '100%')
    >>> parse_split("letters")
    ('letters', '0', '100%')

    Raises:
        InputError: there are brackets with anything else in them.
    """
    match = _SLICE.fullmatch(split)
    if match is not None:
        return match["stem"], match["start"] or "0", match["stop"] or "100%"
    if "[" in split:
        raise InputError(
            f"a part of a file must be given as stem[10%:20%] or stem[500:1000], got {split!r}."
        )
    return split, "0", "100%"


def read_labelled_texts(
    directory: Path, stem: str, classes: Sequence[str], *, label_first: bool
) -> list[LabelledText]:
    """Read ``<stem>.tsv[.gz]``, a text and its class in each line; or two files, line by line.

    The files are ``<stem>.text`` and ``<stem>.label``, each also with ``.gz``.

    Args:
        directory: where the files lie.
        stem: of their names.
        classes: the names of all classes, as they stand in the file.
        label_first: whether the class is the first column of the table, not the second.

    Raises:
        InputError: a file is missing or damaged, a line has not two columns, a class is not one
            of ``classes`` or a text is empty; the message names the line.
    """
    path, rows = _read_rows(directory, stem, label_first=label_first)
    numbers = {name: number for number, name in enumerate(classes)}
    texts = []
    for line, (text, label) in enumerate(rows, start=1):
        if label.strip() not in numbers:
            raise InputError(
                f"{path} must hold the classes of data.classes ({', '.join(classes)}), "
                f"got {label.strip()!r} in line {line}."
            )
        if not text.strip():
            raise InputError(f"{path} must hold a text in every line, got none in line {line}.")
        texts.append(LabelledText(clean_text(text), numbers[label.strip()]))
    if not texts:
        raise InputError(f"{path} must hold texts, got no line.")
    return texts


def _read_rows(
    directory: Path, stem: str, *, label_first: bool
) -> tuple[Path, list[tuple[str, str]]]:
    """Return a file, for messages, and the text and the class of every line."""
    table = find_file(directory, f"{stem}.tsv")
    if table is not None:
        rows = []
        for line, content in enumerate(read_lines(table), start=1):
            columns = content.split("\t")
            if len(columns) != 2:
                raise InputError(
                    f"{table} must have two columns, with a tab between, in every line, "
                    f"got {len(columns)} in line {line}."
                )
            label, text = columns if label_first else reversed(columns)
            rows.append((text, label))
        return table, rows
    text_path, label_path = (find_file(directory, f"{stem}.{end}") for end in ("text", "label"))
    if text_path is None or label_path is None:
        raise InputError(
            f"{directory / stem}.tsv must exist, or {stem}.text and {stem}.label, got no such file."
        )
    texts, labels = read_lines(text_path), read_lines(label_path)
    if len(texts) != len(labels):
        raise InputError(
            f"{text_path} and {label_path} must have as many lines as each other, "
            f"got {len(texts)} and {len(labels)}."
        )
    return label_path, list(zip(texts, labels, strict=True))


def _line_number(limit: str, num_lines: int) -> int:
    if limit.endswith("%"):
        return num_lines * int(limit[:-1]) // 100
    return int(limit)
