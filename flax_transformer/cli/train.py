"""``train``: run the experiment of a config file."""

import argparse
import shlex
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from flax_transformer.cli.allocator import say_so
from flax_transformer.cli.command_parser import CommandParser, UsageError, suggest, to_path
from flax_transformer.cli.distributed import add_distributed_arguments, joined_processes
from flax_transformer.cli.overrides import apply_overrides
from flax_transformer.config import read_config_file
from flax_transformer.experiment.run import run_experiment
from flax_transformer.parallel.processes import say

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
    parser.add_argument("--config", type=to_path, help="a file of configs/")
    parser.add_argument("--workdir", type=to_path, help="directory of the run, made if missing")
    parser.add_argument(
        "--init-from",
        metavar="DIR",
        type=to_path,
        help="start from the parameters and the tokenizer of a run, a model directory or a "
        "public model",
    )
    parser.add_argument(
        "--restart-data",
        action="store_true",
        help="resume with other data, or begin the same data anew",
    )
    parser.add_argument(
        "--strict-resume",
        action="store_true",
        help="stop at a damaged checkpoint instead of going back to the one before it",
    )
    add_distributed_arguments(parser)
    wants_help = bool({"-h", "--help"} & set(argv))
    arguments, overrides = parser.parse_known_args([a for a in argv if a not in ("-h", "--help")])
    if wants_help and arguments.config is None:
        parser.print_help()
        return 0
    for name in ("config", "workdir"):
        if getattr(arguments, name) is None and not wants_help:
            typos = [option.split("=")[0] for option in overrides if "." not in option]
            hint = next(filter(None, (suggest(typo, [f"--{name}"]) for typo in typos)), "")
            raise UsageError(f"--{name} must be given{hint}")
    config = read_config_file(arguments.config)
    config = apply_overrides(config, ["--help"] if wants_help else overrides)
    say_so()
    processes: AbstractContextManager[None] = nullcontext()
    if arguments.distributed:
        processes = joined_processes(
            start_timeout=arguments.start_timeout, heartbeat_timeout=arguments.heartbeat_timeout
        )
    with processes:
        is_complete = run_experiment(
            config,
            arguments.workdir,
            init_from=arguments.init_from,
            restart_data=arguments.restart_data,
            strict=arguments.strict_resume,
        )
    if not is_complete:
        # The data have begun anew: what follows goes on from there.
        again = [argument for argument in argv if argument != "--restart-data"]
        is_script = Path(sys.argv[0]).name == "train.py"
        program = "python train.py" if is_script else "flax-transformer train"
        say(f"stopped early; to resume: {program} {shlex.join(again)}")
    return 0 if is_complete else EXIT_INTERRUPTED
