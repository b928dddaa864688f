"""The options of several models that decode together."""

import argparse
from pathlib import Path

from flax_transformer.cli.command_parser import UsageError, finite_float, to_path
from flax_transformer.decoding.model_combinations import AVERAGE, Combination, Contrast, Ensemble
from flax_transformer.errors import InputError


def add_combination_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that name further models."""
    parser.add_argument(
        "--ensemble",
        metavar="MODEL",
        nargs="+",
        type=to_path,
        default=[],
        help="further models of the same tokenizer: average the probabilities of all",
    )
    parser.add_argument(
        "--ensemble-weights",
        metavar="W",
        nargs="+",
        type=finite_float,
        help="with --ensemble: weights of MODEL and of the others (default: equal ones)",
    )
    parser.add_argument(
        "--contrast",
        metavar="MODEL",
        type=to_path,
        help="a weaker model of the same tokenizer: prefer what it finds less probable",
    )
    parser.add_argument(
        "--contrast-strength",
        metavar="X",
        type=finite_float,
        help="with --contrast: what its log-probabilities are multiplied by (default: 1)",
    )


def other_models(arguments: argparse.Namespace) -> list[Path]:
    """Return the models besides MODEL."""
    return [*arguments.ensemble, *([] if arguments.contrast is None else [arguments.contrast])]


def make_combination(arguments: argparse.Namespace) -> Combination:
    """Return how the models decode together.

    Raises:
        UsageError: the options contradict each other, or a number is out of range.
    """
    if arguments.contrast is not None and arguments.ensemble:
        raise UsageError("--contrast must not be given with --ensemble")
    if arguments.contrast_strength is not None and arguments.contrast is None:
        raise UsageError("--contrast-strength must be given with --contrast")
    if arguments.ensemble_weights is not None and not arguments.ensemble:
        raise UsageError("--ensemble-weights must be given with --ensemble")
    try:
        if arguments.contrast is not None:
            strength = arguments.contrast_strength
            return Contrast() if strength is None else Contrast(strength=strength)
        if arguments.ensemble_weights is None:
            return AVERAGE
        combination = Ensemble(weights=tuple(arguments.ensemble_weights))
        combination.check_count(1 + len(arguments.ensemble))
    except InputError as error:
        raise UsageError(str(error)) from None
    return combination
