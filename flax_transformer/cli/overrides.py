"""Fields of a config given on the command line, such as ``--optimizer.learning-rate 1e-3``."""

import contextlib
import io
import re
from collections.abc import Sequence

import tyro

from flax_transformer.cli.command_parser import UsageError, suggest
from flax_transformer.config import ExperimentConfig, flatten_config


def apply_overrides(config: ExperimentConfig, argv: Sequence[str]) -> ExperimentConfig:
    """Return ``config`` with the fields that ``argv`` sets; ``--help`` lists all of them.

    Raises:
        UsageError: an unknown field, named with the nearest one, or a value of a wrong type.
    """
    options = [
        option
        for name, value in flatten_config(config).items()
        for option in _spellings(name, is_flag=isinstance(value, bool))
    ]
    for argument in argv:
        name = argument.split("=")[0].replace("_", "-")
        if name.startswith("--") and name not in {*options, "--help"}:
            raise UsageError(f"unknown option {name!r}{suggest(name, options)}")
    messages = io.StringIO()
    try:
        with contextlib.redirect_stderr(messages):
            return tyro.cli(
                ExperimentConfig,
                default=config,
                args=list(argv),
                prog="train",
                description="Fields of the config and their values, defaults and all.",
            )
    except SystemExit as ending:
        if ending.code in (0, None):
            raise
        raise UsageError(_first_paragraph(messages.getvalue())) from None


def _spellings(name: str, *, is_flag: bool) -> list[str]:
    """Return the options of a field; a flag has one to set and one to clear it.

    >>> _spellings("model.pre_norm", is_flag=True)
    ['--model.pre-norm', '--model.no-pre-norm']
    """
    parent, _, field = name.replace("_", "-").rpartition(".")
    prefixes = ("", "no-") if is_flag else ("",)
    return [f"--{parent}.{prefix}{field}" for prefix in prefixes]


def _first_paragraph(boxed: str) -> str:
    """Take the message out of the box that tyro draws around it, as one line."""
    lines = [line.strip("│ ") for line in boxed.splitlines()[1:]]
    message = []
    for line in lines:
        if re.fullmatch("[─╰╯╭╮]+", line):
            break
        message.append(line)
    return " ".join(message)
