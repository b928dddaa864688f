"""The options of every command that translates."""

import argparse
from typing import get_args

import jax
from jax.sharding import Mesh

from flax_transformer.cli.command_parser import (
    UsageError,
    finite_float,
    non_negative_int,
    positive_int,
    to_path,
)
from flax_transformer.decoding.beam_strategy import BeamSearch, EarlyStopping
from flax_transformer.decoding.greedy import Greedy
from flax_transformer.decoding.length_penalty import LengthNormalization
from flax_transformer.decoding.logits_processors import LogitsProcessor
from flax_transformer.decoding.prepare import Precision
from flax_transformer.decoding.strategies import Strategy
from flax_transformer.errors import InputError
from flax_transformer.parallel.mesh import MeshConfig, make_mesh

BEAM_OPTIONS = (
    "length_penalty",
    "length_normalization",
    "early_stopping",
    "coverage_penalty",
    "beam_groups",
    "diversity_strength",
)
"""What greedy search has no use for."""

_BEAM_SIZE = 5
_LENGTH_PENALTY = 0.6


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    """Add MODEL."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        type=to_path,
        help="a run's work directory, an exported model, or a public one: a directory, or a name "
        "on the Hugging Face hub",
    )


def add_batch_tokens_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--batch-tokens``."""
    parser.add_argument(
        "--batch-tokens",
        metavar="N",
        type=positive_int,
        default=4096,
        help="positions of a batch at most, padding included (default: %(default)s)",
    )


def add_precision_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--precision``."""
    parser.add_argument(
        "--precision",
        choices=get_args(Precision),
        help="store and multiply the weights in this precision (default: that of the model)",
    )


def add_decoding_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the search and of its batches."""
    add_beam_arguments(parser)
    parser.add_argument(
        "--coverage-penalty",
        metavar="BETA",
        type=finite_float,
        help="penalty of source words that get little attention (default: 0)",
    )
    add_length_arguments(
        parser,
        "2 S + 10 for a source padded to S tokens, or what a ratio asks for where that is more; "
        "the positions of the model at most",
    )
    parser.add_argument(
        "--max-source-length",
        metavar="N",
        type=positive_int,
        help="tokens of a line that are read at most, end token included "
        "(default: the positions of the model)",
    )
    add_batch_tokens_argument(parser)
    add_precision_argument(parser)
    parser.add_argument(
        "--devices",
        metavar="N",
        type=positive_int,
        help="devices that share the rows of each batch (default: all)",
    )


def add_beam_arguments(parser: argparse.ArgumentParser, default_size: int = _BEAM_SIZE) -> None:
    """Add the options of beam search."""
    # No defaults here: an option that is given without effect must be known to be refused.
    parser.add_argument(
        "--beam-size",
        metavar="N",
        type=positive_int,
        help=f"hypotheses kept at every step; 1 is greedy decoding, unless "
        f"another option of beam search is given (default: {default_size})",
    )
    parser.add_argument(
        "--length-penalty",
        metavar="ALPHA",
        type=finite_float,
        help="more favours longer translations; 0 ranks by probability "
        f"(default: {_LENGTH_PENALTY})",
    )
    parser.add_argument(
        "--length-normalization",
        choices=get_args(LengthNormalization),
        help="divide log-probabilities by ((5 + length) / 6)^ALPHA, by length^ALPHA or by nothing "
        "(default: gnmt)",
    )
    parser.add_argument(
        "--early-stopping",
        choices=get_args(EarlyStopping),
        help="stop at as many finished hypotheses as the beam has, when no other can become better "
        "than the best, or at the greatest length (default: first)",
    )
    parser.add_argument(
        "--beam-groups",
        metavar="N",
        type=positive_int,
        help="parts of the beam that are told to differ from each other (default: 1)",
    )
    parser.add_argument(
        "--diversity-strength",
        metavar="X",
        type=finite_float,
        help="with --beam-groups: how much they are told so (default: 0.5)",
    )


def add_length_arguments(parser: argparse.ArgumentParser, default: str) -> None:
    """Add the least and the greatest length of an output; ``default`` says what that one is."""
    parser.add_argument(
        "--min-length",
        metavar="N",
        type=non_negative_int,
        default=0,
        help="tokens of an output at least, end token included (default: %(default)s)",
    )
    parser.add_argument(
        "--max-length",
        metavar="N",
        type=positive_int,
        help=f"tokens of an output at most, end token included (default: {default})",
    )
    for name, kind in (("min", "least"), ("max", "most")):
        parser.add_argument(
            f"--{name}-length-ratio",
            metavar="R",
            type=finite_float,
            help=f"tokens of an output at {kind} for each token of its line",
        )


def check_decoding_arguments(arguments: argparse.Namespace, *, num_best: int = 1) -> None:
    """Raise UsageError if the options contradict each other, before a model is loaded."""
    longest = arguments.max_length or max(1, arguments.min_length)
    try:
        make_strategy(arguments, max_positions=longest, num_best=num_best)
    except InputError as error:
        raise UsageError(str(error)) from None


def make_strategy(
    arguments: argparse.Namespace,
    *,
    max_positions: int,
    num_best: int = 1,
    processors: tuple[LogitsProcessor, ...] = (),
    needs_beam: bool = False,
) -> Strategy:
    """Return the search that the options describe, for a model of ``max_positions``.

    A beam of one is greedy decoding, unless ``needs_beam`` or an option of beam search is given.

    Raises:
        InputError: the options contradict each other.
    """
    if arguments.diversity_strength is not None and (arguments.beam_groups or 1) == 1:
        raise InputError("--diversity-strength must be given with --beam-groups of 2 or more.")
    needs_beam |= any(getattr(arguments, name) is not None for name in BEAM_OPTIONS)
    beam_size = arguments.beam_size or _BEAM_SIZE
    max_length = resolve_max_length(arguments, max_positions)
    if beam_size == num_best == 1 and not needs_beam:
        return Greedy(
            min_length=arguments.min_length,
            max_length=max_length,
            min_length_ratio=arguments.min_length_ratio,
            max_length_ratio=arguments.max_length_ratio,
            processors=processors,
        )
    return BeamSearch(
        beam_size=beam_size,
        num_best=num_best,
        min_length=arguments.min_length,
        max_length=max_length,
        min_length_ratio=arguments.min_length_ratio,
        max_length_ratio=arguments.max_length_ratio,
        length_penalty=_or(arguments.length_penalty, _LENGTH_PENALTY),
        length_normalization=arguments.length_normalization or "gnmt",
        early_stopping=arguments.early_stopping or "first",
        coverage_penalty=_or(arguments.coverage_penalty, 0.0),
        num_groups=arguments.beam_groups or 1,
        diversity_strength=_or(arguments.diversity_strength, 0.5),
        processors=processors,
    )


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def resolve_max_length(arguments: argparse.Namespace, max_positions: int) -> int:
    """Return the length limit for a model of ``max_positions``."""
    return min(arguments.max_length or max_positions, max_positions)


def make_decoding_mesh(arguments: argparse.Namespace) -> Mesh | None:
    """Return the devices that share each batch, None for a single one.

    Raises:
        InputError: there are fewer than were asked for.
    """
    devices = jax.devices()
    count = arguments.devices or len(devices)
    if count > len(devices):
        raise InputError(f"--devices must be at most the {len(devices)} at hand, got {count}.")
    return None if count == 1 else make_mesh(MeshConfig(data=count), devices[:count])
