"""The lines that a command works at, with what is asked for each of them."""

import argparse
import contextlib
from collections.abc import Iterator
from pathlib import Path

from flax_transformer.cli.command_parser import to_path
from flax_transformer.cli.text_io import iterate_lines, open_input
from flax_transformer.errors import InputError
from flax_transformer.evaluation.translation import Request


def add_request_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--constraints`` and ``--prefix``."""
    parser.add_argument(
        "--constraints",
        metavar="FILE",
        type=to_path,
        help="texts that the output of each line must hold, apart from the word before: a line "
        "for a line, texts separated by tabs",
    )
    parser.add_argument(
        "--prefix",
        metavar="FILE",
        type=to_path,
        help="how the output of each line must begin: a line for a line",
    )


def input_files(arguments: argparse.Namespace) -> list[Path]:
    """Return the files that are read while outputs are written."""
    names = ("input", "constraints", "prefix", "bad_words")
    return [path for name in names if (path := getattr(arguments, name)) is not None]


@contextlib.contextmanager
def open_requests(
    arguments: argparse.Namespace, *, prompt: str | None = None, strict: bool
) -> Iterator[Iterator[Request]]:
    """Read the lines, or take ``prompt`` for the only one; and what is given for them."""
    with contextlib.ExitStack() as stack:

        def lines_of(path: Path | None) -> Iterator[str]:
            name = "standard input" if path is None else str(path)
            return iterate_lines(stack.enter_context(open_input(path)), name, strict=strict)

        lines = lines_of(arguments.input) if prompt is None else iter([prompt])
        prefixes, constraints = (
            None if path is None else lines_of(path)
            for path in (arguments.prefix, arguments.constraints)
        )
        yield _join_requests(lines, prefixes, constraints)


def _join_requests(
    lines: Iterator[str], prefixes: Iterator[str] | None, constraints: Iterator[str] | None
) -> Iterator[Request]:
    """Yield a request for each line.

    Raises:
        InputError: there are fewer prefixes or constraints than lines, or more.
    """
    number = 0
    for number, line in enumerate(lines, start=1):
        prefix, texts = (
            _next_line(side, option, number)
            for side, option in ((prefixes, "--prefix"), (constraints, "--constraints"))
        )
        yield Request(line, prefix, tuple(texts.split("\t")))
    for side, option in ((prefixes, "--prefix"), (constraints, "--constraints")):
        if side is not None and next(side, None) is not None:
            raise InputError(
                f"{option} must have a line for each line, got more than the {number} of the input."
            )


def _next_line(side: Iterator[str] | None, option: str, number: int) -> str:
    """Return what a file says of line ``number``, nothing where there is no file."""
    if side is None:
        return ""
    line = next(side, None)
    if line is None:
        raise InputError(f"{option} must have a line for each line, got none for line {number}.")
    return line
