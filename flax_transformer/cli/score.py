"""``flax-transformer score``: the log-probability of given translations."""

import argparse

from flax_transformer.cli.command_parser import to_path
from flax_transformer.cli.decoding_arguments import add_batch_tokens_argument, add_model_argument
from flax_transformer.cli.progress import progress_bar
from flax_transformer.cli.sampling_arguments import (
    add_forced_first_argument,
    choose_forced_first,
)
from flax_transformer.cli.text_io import open_output, read_lines
from flax_transformer.errors import InputError
from flax_transformer.evaluation.score import score_pairs
from flax_transformer.interop.pretrained import load_translator


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_model_argument(parser)
    parser.add_argument("--source", metavar="FILE", type=to_path, required=True, help="source text")
    parser.add_argument(
        "--target", metavar="FILE", type=to_path, required=True, help="translations"
    )
    parser.add_argument("--output", metavar="FILE", type=to_path, help="default: standard output")
    add_forced_first_argument(parser)
    add_batch_tokens_argument(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the natural log-probability of each line, end token included; return the status."""
    sources = read_lines(arguments.source)
    targets = read_lines(arguments.target)
    if len(sources) != len(targets):
        raise InputError(
            f"{arguments.source} and {arguments.target} must have equally many lines, "
            f"got {len(sources)} and {len(targets)}."
        )
    inputs = [arguments.source, arguments.target]
    with open_output(arguments.output, inputs=inputs) as output:
        pretrained = load_translator(arguments.model)
        vocab_size = pretrained.config.target_vocab_size
        first_id = choose_forced_first(arguments, pretrained.generation, vocab_size=vocab_size)
        with progress_bar(len(sources)) as progress:
            scores = score_pairs(
                pretrained.model,
                pretrained.params,
                pretrained.tokenizer,
                sources,
                targets,
                forced_first_id=first_id,
                batch_tokens=arguments.batch_tokens,
                progress=progress,
            )
        output.writelines(f"{score:.4f}\n" for score in scores)
    return 0
