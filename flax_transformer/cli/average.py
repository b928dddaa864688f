"""``flax-transformer average``: one model from the last checkpoints of a run."""

import argparse
from pathlib import Path

from flax_transformer.checkpoints.damage import join_steps
from flax_transformer.checkpoints.reader import list_steps
from flax_transformer.cli.command_parser import positive_int, to_path
from flax_transformer.config import load_config
from flax_transformer.data.public_tokenizer import load_tokenizer
from flax_transformer.errors import InputError
from flax_transformer.experiment.selection import average_run
from flax_transformer.interop.pretrained import Pretrained, save_model
from flax_transformer.models.make_model import make_model
from flax_transformer.run_layout import (
    CHECKPOINT_DIRECTORY,
    CONFIG_FILE,
    MODEL_DIRECTORY,
    TOKENIZER_DIRECTORY,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("workdir", metavar="WORKDIR", type=to_path, help="a run's work directory")
    parser.add_argument(
        "--last",
        metavar="K",
        type=positive_int,
        help="checkpoints to average, the latest of those that were kept "
        "(default: training.average_last of the run)",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=to_path,
        help=f"model directory to write; an older model there is replaced "
        f"(default: WORKDIR/{MODEL_DIRECTORY}, the run's own choice)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Average, save and say what has been averaged; return the exit status."""
    workdir: Path = arguments.workdir
    output: Path = arguments.output or workdir / MODEL_DIRECTORY
    experiment = load_config(workdir / CONFIG_FILE)
    config = experiment.model
    model = make_model(config)
    checkpoints = workdir / CHECKPOINT_DIRECTORY
    steps = list_steps(checkpoints)[-(arguments.last or experiment.training.average_last) :]
    if not steps:
        raise InputError(f"{checkpoints} must hold at least one checkpoint, got none.")
    params = average_run(checkpoints, steps, model, experiment.training.lora)
    tokenizer = load_tokenizer(workdir / TOKENIZER_DIRECTORY)
    labels = experiment.data.classes
    save_model(output, Pretrained(model, params, config, tokenizer, labels=labels))
    print(f"averaged {join_steps(steps)} into {output}")
    return 0
