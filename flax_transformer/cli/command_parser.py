"""An argument parser whose errors are one line, and the types of its options."""

import argparse
import difflib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from flax_transformer.errors import InputError


class UsageError(InputError):
    """A command line that cannot be understood, or whose options contradict each other."""


class CommandParser(argparse.ArgumentParser):
    """An ``ArgumentParser`` that raises UsageError and names the option that was meant.

    Options are not abbreviated: a typo must not be taken for another option.
    """

    def __init__(
        self,
        *,
        prog: str,
        usage: str | None = None,
        description: str,
        epilog: str | None = None,
        formatter_class: type[argparse.HelpFormatter] = argparse.HelpFormatter,
    ) -> None:
        super().__init__(
            prog=prog,
            usage=usage,
            description=description,
            epilog=epilog,
            formatter_class=formatter_class,
            allow_abbrev=False,
        )

    def parse(self, argv: Sequence[str]) -> argparse.Namespace:
        """Parse all of ``argv``; raise UsageError on what is not known."""
        # Positional arguments may stand between options and behind them.
        arguments, unknown = self.parse_known_intermixed_args(argv)
        if unknown:
            kind = "option" if unknown[0].startswith("-") else "argument"
            name = unknown[0].split("=")[0]
            hint = suggest(name, list(self._option_string_actions)) if kind == "option" else ""
            raise UsageError(f"unknown {kind} {name!r}{hint}")
        return arguments

    def error(self, message: str) -> NoReturn:
        """Raise UsageError in place of printing the usage and exiting."""
        raise UsageError(message)


def suggest(name: str, choices: Sequence[str]) -> str:
    """Return "; did you mean …?" with the nearest of ``choices``, or nothing.

    >>> suggest("--beam-sice", ["--beam-size", "--n-best"])
    '; did you mean --beam-size?'
    """
    nearest = difflib.get_close_matches(name, choices, n=1)
    return f"; did you mean {nearest[0]}?" if nearest else ""


def to_path(text: str) -> Path:
    """Read a path; nothing, as of a variable that is not set, is none.

    >>> to_path("runs/quickstart").name
    'quickstart'
    """
    if not text:
        raise argparse.ArgumentTypeError("must be a path, got nothing; . is the current directory")
    return Path(text)


def positive_int(text: str) -> int:
    """Read an integer of at least 1.

    >>> positive_int("12")
    12
    """
    return _int_from(1, text)


def non_negative_int(text: str) -> int:
    """Read an integer of at least 0.

    >>> non_negative_int("0")
    0
    """
    return _int_from(0, text)


def finite_float(text: str) -> float:
    """Read a number that is neither infinite nor NaN.

    >>> finite_float("0.6")
    0.6
    """
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"must be a finite number, got {text!r}")
    return value


def _int_from(least: int, text: str) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"must be an integer of at least {least}, got {text!r}")
    return value
