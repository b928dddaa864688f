"""Parallel plain text: two files line by line, or one file of two tab-separated columns."""

import gzip
import zlib
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path

from flax_transformer.data.sentence_pair import SentencePair, clean_text
from flax_transformer.data.text_lines import decode_lines
from flax_transformer.errors import InputError


def read_lines(path: Path) -> list[str]:
    """Read the lines of a UTF-8 file, gzip-compressed when its name ends in ``.gz``.

    Raises:
        InputError: the file cannot be read or is not UTF-8; the message names file and line,
            and counts the bad lines.
    """
    try:
        with _open(path) as stream:
            return list(decode_lines(stream, str(path), strict=True))
    except InputError as error:
        num_invalid, num_lines = _count_invalid_lines(path)
        raise InputError(
            f"{error} In all, {num_invalid} of {num_lines} lines are not UTF-8."
        ) from None
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(f"{path} must be a whole gzip file, got a damaged one: {error}.") from None
    except OSError as error:
        raise InputError(f"{path} must be a readable file: {error.strerror}.") from None


def read_parallel_text(
    directory: Path, stem: str, source_language: str, target_language: str
) -> list[SentencePair]:
    """Read ``<stem>.<language>[.gz]`` for both languages, or a table, line by line.

    A table is ``<stem>.<source>-<target>.tsv[.gz]``, whose columns its name tells in either order,
    or ``<stem>.tsv[.gz]``, whose first column is the source. The pairs are not filtered, so pair N
    comes from line N + 1.

    Raises:
        InputError: a file is missing or damaged, the two files differ in length, or a line of the
            TSV file has not two columns.
    """
    names = [f"{stem}.{source_language}", f"{stem}.{target_language}"]
    table = _find_table(directory, stem, source_language, target_language)
    source_path, target_path = (find_file(directory, name) for name in names)
    if source_path is None and target_path is None and table is not None:
        pairs = _read_table(table)
        is_reversed = table.name.startswith(f"{stem}.{target_language}-{source_language}.")
        return [SentencePair(b, a) for a, b in pairs] if is_reversed else pairs
    if source_path is None or target_path is None:
        missing = names[0] if source_path is None else names[1]
        raise InputError(
            f"{directory / missing} must exist (as such, with .gz, or both languages in "
            f"{stem}.{source_language}-{target_language}.tsv or {stem}.tsv), got no such file."
        )
    sources, targets = read_lines(source_path), read_lines(target_path)
    if len(sources) != len(targets):
        raise InputError(
            f"{source_path} and {target_path} must have as many lines as each other, "
            f"got {len(sources)} and {len(targets)}."
        )
    return [
        SentencePair(clean_text(source), clean_text(target))
        for source, target in zip(sources, targets, strict=True)
    ]


def keep_labelled(
    pairs: Sequence[SentencePair], label_file: Path, labels: Sequence[str]
) -> list[SentencePair]:
    """Keep the pairs whose line in ``label_file`` is one of ``labels``.

    Raises:
        InputError: the file has another number of lines, or lacks one of the labels.
    """
    found = [line.strip() for line in read_lines(label_file)]
    if len(found) != len(pairs):
        raise InputError(
            f"{label_file} must have one label for each of the {len(pairs)} lines of text, "
            f"got {len(found)}."
        )
    missing = sorted(set(labels) - set(found))
    if missing:
        known = ", ".join(sorted(set(found)))
        raise InputError(f"labels must occur in {label_file} ({known}), got {', '.join(missing)}.")
    return [pair for pair, label in zip(pairs, found, strict=True) if label in labels]


def check_not_empty(pairs: Sequence[SentencePair], name: str) -> None:
    """Raise InputError unless some pair has text on both sides."""
    if not any(pair.source and pair.target for pair in pairs):
        raise InputError(f"{name} must contain sentence pairs, got {len(pairs)} lines and no pair.")


def find_file(directory: Path, name: str) -> Path | None:
    """Return the path of a file, plain or with ``.gz``, or None if there is neither."""
    for path in (directory / name, directory / f"{name}.gz"):
        if path.exists():
            return path
    return None


def _open(path: Path) -> gzip.GzipFile | BufferedReader:
    return gzip.open(path) if path.suffix == ".gz" else path.open("rb")


def _count_invalid_lines(path: Path) -> tuple[int, int]:
    """Return how many lines are not UTF-8, and of how many."""
    num_invalid = num_lines = 0
    with _open(path) as stream:
        for line in stream:
            num_lines += 1
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                num_invalid += 1
    return num_invalid, num_lines


def _find_table(
    directory: Path, stem: str, source_language: str, target_language: str
) -> Path | None:
    forward = f".{source_language}-{target_language}"
    backward = f".{target_language}-{source_language}"
    for order in (forward, backward, ""):
        if path := find_file(directory, f"{stem}{order}.tsv"):
            return path
    return None


def _read_table(path: Path) -> list[SentencePair]:
    pairs = []
    for number, line in enumerate(read_lines(path), start=1):
        columns = line.split("\t")
        if len(columns) != 2:
            raise InputError(
                f"{path} must have two columns, with a tab between, in every line, "
                f"got {len(columns)} in line {number}."
            )
        pairs.append(SentencePair(clean_text(columns[0]), clean_text(columns[1])))
    return pairs
