"""The console command ``flax-transformer``: choose a sub-command and run it."""

import argparse
import importlib
import importlib.metadata
import io
import logging
import sys
from collections.abc import Sequence

from flax_transformer.cli.allocator import restart_with_tuned_allocator
from flax_transformer.cli.command_parser import CommandParser, UsageError, positive_int, suggest
from flax_transformer.cli.compile_cache import keep_compiled_programs
from flax_transformer.cli.exit_status import run_guarded
from flax_transformer.parallel.threads import limit_threads

PROGRAM = "flax-transformer"

# Of each, `flax_transformer.cli.<name>` is imported when it is chosen, and not before: they load
# heavy libraries.
COMMANDS = {
    "train": "train a model by a config file",
    "plan": "compute what training takes of many devices, without having them",
    "prepare": "download and prepare a data set",
    "translate": "translate text, a line for a line",
    "generate": "continue a text by a language model",
    "evaluate": "score a model's translations by BLEU, chrF and TER",
    "score": "give the log-probability of translations that are already there",
    "average": "average the last checkpoints of a run into one model",
    "convert": "write a public model as one of ours, or one of ours as a public model",
    "card": "say what a model is: its sizes, data, scores, energy and limits",
}

COMPUTING = ("train", "translate", "generate", "evaluate", "score")
"""Commands that compile programs which another run may use again."""

FILTERS = ("translate", "generate", "evaluate", "score", "card")
"""Commands that only print: they end when nobody reads any more."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command of ``argv`` (default: of the process); return the exit status.

    0: done; 1: something given cannot be used; 2: wrong usage; 130: interrupted.
    """
    if argv is None:
        argv = sys.argv[1:]
        if argv[:1] == ["train"]:
            argv = restart_with_tuned_allocator(argv)
    argv = list(argv)
    # Output is UTF-8 whatever the locale, and has a line feed at the end of a line.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", newline="\n")
    name = argv[0] if argv and argv[0] in COMMANDS else None
    return run_guarded(
        PROGRAM if name is None else f"{PROGRAM} {name}",
        lambda: _choose_command(argv) if name is None else _run_command(name, argv[1:]),
        is_filter=name in FILTERS,
    )


def _choose_command(argv: Sequence[str]) -> int:
    """Answer a command line that does not begin with a command: help, version or an error."""
    if argv and not argv[0].startswith("-"):
        raise UsageError(f"unknown command {argv[0]!r}{suggest(argv[0], list(COMMANDS))}")
    width = max(map(len, COMMANDS))
    parser = CommandParser(
        prog=PROGRAM,
        usage=f"{PROGRAM} COMMAND [OPTION ...]",
        description="Train Transformers on text, and use them: translate, continue, score.",
        epilog="commands:\n"
        + "\n".join(f"  {name:{width}}  {text}" for name, text in COMMANDS.items())
        + f"\n\n`{PROGRAM} COMMAND --help` lists the options of a command.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    version = importlib.metadata.version("flax-transformer")
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {version}")
    parser.parse(argv)
    raise UsageError(f"a command must be given: one of {', '.join(COMMANDS)}")


def _run_command(name: str, argv: list[str]) -> int:
    logging.basicConfig(
        level=logging.WARNING, format=f"{PROGRAM} {name}: %(levelname)s: %(message)s"
    )
    if name in COMPUTING:
        keep_compiled_programs()
    command = importlib.import_module(f"flax_transformer.cli.{name}")
    if name in ("train", "plan"):
        # Their options are the fields of the config file, which are known when that has been read.
        return command.main(argv)
    text = COMMANDS[name]
    description = f"{text[0].upper()}{text[1:]}."  # names, such as BLEU, keep their capitals
    parser = CommandParser(prog=f"{PROGRAM} {name}", description=description)
    command.add_arguments(parser)
    if name in COMPUTING:
        parser.add_argument(
            "--threads",
            metavar="N",
            type=positive_int,
            help="threads of the processor that compute (default: one for each core)",
        )
    arguments = parser.parse(argv)
    if name in COMPUTING and arguments.threads is not None:
        limit_threads(arguments.threads)
    return command.run(arguments)
