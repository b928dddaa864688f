"""The options of every command that translates."""

import argparse
from pathlib import Path

from flax_transformer.cli.command_parser import (
    UsageError,
    finite_float,
    non_negative_int,
    positive_int,
)
from flax_transformer.decoding.beam_search import BeamSearch
from flax_transformer.decoding.generate import Strategy
from flax_transformer.decoding.greedy import Greedy
from flax_transformer.errors import InputError


def add_model_argument(parser: argparse.ArgumentParser) -> None:
    """Add MODEL."""
    parser.add_argument(
        "model",
        metavar="MODEL",
        type=Path,
        help="a run's work directory, or a directory with an exported model",
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


def add_decoding_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the search and of its batches."""
    parser.add_argument(
        "--beam-size",
        metavar="N",
        type=positive_int,
        default=5,
        help="hypotheses kept at every step; 1 is greedy decoding (default: %(default)s)",
    )
    parser.add_argument(
        "--length-penalty",
        metavar="ALPHA",
        type=finite_float,
        default=0.6,
        help="more favours longer translations; 0 ranks by probability (default: %(default)s)",
    )
    parser.add_argument(
        "--length-normalization",
        choices=("gnmt", "power"),
        default="gnmt",
        help="divide log-probabilities by ((5 + length) / 6)^ALPHA or by length^ALPHA "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--min-length",
        metavar="N",
        type=non_negative_int,
        default=0,
        help="tokens of a translation at least, end token included (default: %(default)s)",
    )
    parser.add_argument(
        "--max-length",
        metavar="N",
        type=positive_int,
        help="tokens of a translation at most, end token included; never more than 2 S + 10 for "
        "a source padded to S tokens (default: the positions of the model)",
    )
    parser.add_argument(
        "--max-source-length",
        metavar="N",
        type=positive_int,
        help="tokens of a line that are read at most, end token included "
        "(default: the positions of the model)",
    )
    add_batch_tokens_argument(parser)


def check_decoding_arguments(arguments: argparse.Namespace, *, num_best: int = 1) -> None:
    """Raise UsageError if the options contradict each other, before a model is loaded."""
    longest = arguments.max_length or max(1, arguments.min_length)
    try:
        make_strategy(arguments, max_positions=longest, num_best=num_best)
    except InputError as error:
        raise UsageError(str(error)) from None


def make_strategy(
    arguments: argparse.Namespace, *, max_positions: int, num_best: int = 1
) -> Strategy:
    """Return the search that the options describe, for a model of ``max_positions``."""
    max_length = min(arguments.max_length or max_positions, max_positions)
    if arguments.beam_size == num_best == 1:
        return Greedy(min_length=arguments.min_length, max_length=max_length)
    return BeamSearch(
        beam_size=arguments.beam_size,
        num_best=num_best,
        min_length=arguments.min_length,
        max_length=max_length,
        length_penalty=arguments.length_penalty,
        length_normalization=arguments.length_normalization,
    )
