"""``train``: run the experiment of a config file."""

import argparse
import shlex
from pathlib import Path

from flax_transformer.cli.command_parser import CommandParser
from flax_transformer.cli.overrides import apply_overrides
from flax_transformer.config import read_config_file
from flax_transformer.experiment import run_experiment

EXIT_INTERRUPTED = 75
"""Exit status after a signal: all is saved, try again (EX_TEMPFAIL of sysexits.h)."""


def main(argv: list[str]) -> int:
    """Train as ``argv`` says; return the exit status."""
    parser = CommandParser(
        prog="train",
        usage="train.py --config FILE --workdir DIR [--SECTION.FIELD VALUE ...]",
        description="Train a model, or go on training it where its work directory is.",
        epilog="With --config, --help lists the fields of that config.",
        formatter_class=argparse.HelpFormatter,
    )
    has_config = any(argument.split("=")[0] == "--config" for argument in argv)
    parser.add_argument("--config", type=Path, required=True, help="a file of configs/")
    parser.add_argument(
        "--workdir", type=Path, required=True, help="directory of the run, made if missing"
    )
    if has_config and {"-h", "--help"} & set(argv):
        position = next(i for i, text in enumerate(argv) if text.startswith("--config"))
        path = argv[position].partition("=")[2] or argv[position + 1]
        apply_overrides(read_config_file(Path(path)), ["--help"])
    arguments, overrides = parser.parse_known_args(argv)
    config = apply_overrides(read_config_file(arguments.config), overrides)
    is_complete = run_experiment(config, arguments.workdir)
    if not is_complete:
        print(f"stopped early; to resume: train.py {shlex.join(argv)}")
    return 0 if is_complete else EXIT_INTERRUPTED
