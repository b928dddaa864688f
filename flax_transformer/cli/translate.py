"""``flax-transformer translate``: text in, translations out, a line for a line."""

import argparse
import logging
import sys
from collections.abc import Callable
from pathlib import Path

from flax_transformer.cli.command_parser import UsageError, positive_int
from flax_transformer.cli.decoding_arguments import (
    add_decoding_arguments,
    add_model_argument,
    check_decoding_arguments,
    make_strategy,
)
from flax_transformer.cli.progress import progress_bar
from flax_transformer.cli.text_io import count_lines, iterate_lines, open_input, open_output
from flax_transformer.evaluation.translate import Translation, translate_windows
from flax_transformer.interop.pretrained import load_pretrained

_logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_model_argument(parser)
    parser.add_argument("--input", metavar="FILE", type=Path, help="default: standard input")
    parser.add_argument("--output", metavar="FILE", type=Path, help="default: standard output")
    add_decoding_arguments(parser)
    parser.add_argument(
        "--n-best",
        metavar="N",
        type=positive_int,
        default=1,
        help="translations of a line; for more than 1 they are written as "
        "'INDEX ||| TEXT ||| SCORE', where INDEX counts lines from 0 (default: %(default)s)",
    )
    parser.add_argument(
        "--scores", action="store_true", help="write a tab and the score after each translation"
    )
    parser.add_argument(
        "--window",
        metavar="N",
        type=positive_int,
        help="lines that are read, sorted by length and translated together "
        "(default: as many as a batch has tokens, and 1 when standard input is a terminal)",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="stop at a line that is not UTF-8 (default: read its invalid bytes as U+FFFD)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Translate; return the exit status."""
    check_decoding_arguments(arguments, num_best=arguments.n_best)
    if arguments.scores and arguments.n_best > 1:
        raise UsageError("--scores must not be given with --n-best, which writes scores itself")
    inputs = [] if arguments.input is None else [arguments.input]
    with (
        # First, since a fault of a file is sooner found than a model loaded.
        open_input(arguments.input) as source,
        open_output(arguments.output, inputs=inputs) as output,
    ):
        pretrained = load_pretrained(arguments.model)
        name = "standard input" if arguments.input is None else str(arguments.input)
        is_interactive = arguments.input is None and sys.stdin.isatty()
        num_lines = None if arguments.input is None else count_lines(arguments.input)
        make_lines = _choose_format(arguments)
        num_truncated = line_index = 0
        with progress_bar(num_lines) as progress:
            for window in translate_windows(
                pretrained.model,
                pretrained.params,
                pretrained.tokenizer,
                iterate_lines(source, name, strict=arguments.strict),
                strategy=make_strategy(
                    arguments,
                    max_positions=pretrained.config.max_positions,
                    num_best=arguments.n_best,
                ),
                batch_tokens=arguments.batch_tokens,
                max_source_length=arguments.max_source_length,
                window_size=arguments.window
                or (1 if is_interactive else max(2000, arguments.batch_tokens)),
                progress=progress,
            ):
                for translations in window:
                    output.write(make_lines(line_index, translations))
                    num_truncated += translations[0].truncated
                    line_index += 1
                output.flush()
    if num_truncated:
        _logger.warning(
            "%d of %d translations were cut at the length limit", num_truncated, line_index
        )
    return 0


def _choose_format(arguments: argparse.Namespace) -> Callable[[int, list[Translation]], str]:
    """Return what writes the translations of one line."""
    if arguments.n_best > 1:
        return format_n_best
    if arguments.scores:
        return lambda _, translations: format_scored(translations[0])
    return lambda _, translations: f"{translations[0].text}\n"


def format_scored(translation: Translation) -> str:
    r"""Return the text, a tab and the score.

    >>> format_scored(Translation("Olá.", -0.25, 3, False))
    'Olá.\t-0.2500\n'
    """
    return f"{translation.text}\t{translation.score:.4f}\n"


def format_n_best(index: int, translations: list[Translation]) -> str:
    r"""Return a line for each translation of line ``index``, best first.

    >>> format_n_best(3, [Translation("Olá.", -0.25, 3, False)])
    '3 ||| Olá. ||| -0.2500\n'
    """
    return "".join(
        f"{index} ||| {translation.text} ||| {translation.score:.4f}\n"
        for translation in translations
    )
