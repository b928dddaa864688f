"""``flax-transformer average``: one model from the last checkpoints of a run."""

import argparse
from pathlib import Path

from flax_transformer.cli.command_parser import positive_int
from flax_transformer.config import load_config
from flax_transformer.data.tokenizer import TranslationTokenizer
from flax_transformer.errors import InputError
from flax_transformer.interop.pretrained import (
    CHECKPOINT_DIRECTORY,
    CONFIG_FILE,
    MODEL_DIRECTORY,
    TOKENIZER_DIRECTORY,
    WEIGHTS_FILE,
    Pretrained,
    save_model,
)
from flax_transformer.models.encoder_decoder import EncoderDecoder
from flax_transformer.models.parameters import abstract_parameters
from flax_transformer.training.averaging import average_checkpoints
from flax_transformer.training.checkpoint_reader import list_steps


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument("workdir", metavar="WORKDIR", type=Path, help="a run's work directory")
    parser.add_argument(
        "--last",
        metavar="K",
        type=positive_int,
        default=5,
        help="checkpoints to average, the latest of those that were kept (default: %(default)s)",
    )
    parser.add_argument(
        "--output",
        metavar="DIR",
        type=Path,
        help=f"model directory to write or replace (default: WORKDIR/{MODEL_DIRECTORY})",
    )


def run(arguments: argparse.Namespace) -> int:
    """Average, save and say what has been averaged; return the exit status."""
    workdir: Path = arguments.workdir
    output: Path = arguments.output or workdir / MODEL_DIRECTORY
    _check_replaceable(output)
    config = load_config(workdir / CONFIG_FILE).model
    model = EncoderDecoder(config)
    checkpoints = workdir / CHECKPOINT_DIRECTORY
    steps = list_steps(checkpoints)[-arguments.last :]
    if not steps:
        raise InputError(f"{checkpoints} must hold at least one checkpoint, got none.")
    params = average_checkpoints(checkpoints, steps, like=abstract_parameters(model))
    tokenizer = TranslationTokenizer.load(workdir / TOKENIZER_DIRECTORY)
    save_model(output, Pretrained(model, params, config, tokenizer))
    print(f"averaged the checkpoints of steps {', '.join(map(str, steps))} into {output}")
    return 0


def _check_replaceable(output: Path) -> None:
    """Raise InputError if ``output`` is anything but a model directory or nothing."""
    is_model = (output / WEIGHTS_FILE).is_file()
    if output.exists() and not is_model and not (output.is_dir() and not any(output.iterdir())):
        raise InputError(f"--output must be a new directory or that of a model, got {output}.")
