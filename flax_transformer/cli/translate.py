"""``flax-transformer translate``: text in, translations out, a line for a line."""

import argparse
import logging
import sys
from collections.abc import Iterator
from typing import TextIO

from flax_transformer.cli.command_parser import UsageError, positive_int, to_path
from flax_transformer.cli.decoding_arguments import (
    add_decoding_arguments,
    add_model_argument,
    make_decoding_mesh,
)
from flax_transformer.cli.model_arguments import (
    add_combination_arguments,
    make_combination,
    other_models,
)
from flax_transformer.cli.progress import progress_bar
from flax_transformer.cli.requests import add_request_arguments, input_files, open_requests
from flax_transformer.cli.sampling_arguments import (
    add_constraint_arguments,
    add_sampling_arguments,
    check_sampling_arguments,
    constrain,
    make_processors,
    make_sampling_strategy,
    num_outputs,
    read_bad_words,
)
from flax_transformer.cli.text_io import count_lines, open_output
from flax_transformer.cli.translation_format import (
    TranslationFormat,
    add_format_arguments,
    choose_output,
)
from flax_transformer.decoding.strategies import Strategy
from flax_transformer.errors import InputError
from flax_transformer.evaluation.translate import translate_windows
from flax_transformer.evaluation.translation import Request
from flax_transformer.interop.pretrained import Translator, load_translator

_logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_model_argument(parser)
    parser.add_argument("--input", metavar="FILE", type=to_path, help="default: standard input")
    parser.add_argument("--output", metavar="FILE", type=to_path, help="default: standard output")
    add_combination_arguments(parser)
    add_decoding_arguments(parser)
    add_sampling_arguments(parser)
    add_constraint_arguments(parser)
    add_request_arguments(parser)
    add_format_arguments(parser)
    parser.add_argument(
        "--alignment",
        action="store_true",
        help="write the alignment after each translation: pairs I-J of words, counted from 0 "
        "between spaces, of which a token of word J of the translation attends most to one of "
        "word I of the line",
    )
    parser.add_argument(
        "--window",
        metavar="N",
        type=positive_int,
        help="lines that are read, sorted by length and translated together (default: as many as "
        "a batch has tokens, 2000 at least, and 1 when standard input is a terminal)",
    )
    parser.add_argument(
        "--streams",
        metavar="N",
        type=positive_int,
        default=1,
        help="batches that are worked at together, on one device; a CPU parts batches of sixteen "
        "lines or more by itself (default: %(default)s)",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="stop at a line that is not UTF-8 (default: read its invalid bytes as U+FFFD)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Translate; return the exit status."""
    if arguments.scores and arguments.n_best > 1:
        raise UsageError("--scores must not be given with --n-best, which writes scores itself")
    check_sampling_arguments(arguments)
    make_combination(arguments)
    with (
        # First, since a fault of a file is sooner found than a model loaded.
        open_requests(arguments, strict=arguments.strict) as requests,
        open_output(arguments.output, inputs=input_files(arguments)) as output,
    ):
        bad_words = read_bad_words(arguments)
        translators = _load(arguments)
        strategy = _make_strategy(arguments, translators, bad_words)
        num_truncated, num_lines = _translate(arguments, translators, strategy, requests, output)
    if num_truncated:
        _logger.warning(
            "%d of %d translations were cut at the length limit", num_truncated, num_lines
        )
    return 0


def _load(arguments: argparse.Namespace) -> list[Translator]:
    """Load the models.

    Raises:
        InputError: they have different tokenizers.
    """
    others = other_models(arguments)
    translators = [load_translator(path) for path in (arguments.model, *others)]
    sides = [(each.tokenizer.source.model, each.tokenizer.target.model) for each in translators]
    for path, of_model in zip(others, sides[1:], strict=True):
        if of_model != sides[0]:
            raise InputError(f"{path} must have the tokenizer of {arguments.model}.")
    return translators


def _translate(
    arguments: argparse.Namespace,
    translators: list[Translator],
    strategy: Strategy,
    requests: Iterator[Request],
    output: TextIO,
) -> tuple[int, int]:
    """Write the translations; return how many of how many are cut."""
    is_interactive = arguments.input is None and sys.stdin.isatty()
    total = None if arguments.input is None else count_lines(arguments.input)
    form = TranslationFormat(
        n_best=arguments.n_best > 1,
        scores=arguments.scores,
        alignment=arguments.alignment,
        as_json=arguments.json,
    )
    num_truncated = line_index = 0
    with progress_bar(total) as progress:
        for window in translate_windows(
            tuple(translator.model for translator in translators),
            tuple(translator.params for translator in translators),
            translators[0].tokenizer,
            requests,
            strategy=strategy,
            combine=make_combination(arguments),
            precision=arguments.precision,
            batch_tokens=arguments.batch_tokens,
            max_source_length=arguments.max_source_length,
            limit_by_source=arguments.max_length is None,
            with_alignment=arguments.alignment,
            num_streams=arguments.streams,
            window_size=arguments.window
            or (1 if is_interactive else max(2000, arguments.batch_tokens)),
            mesh=make_decoding_mesh(arguments),
            progress=progress,
        ):
            for translations in window:
                chosen = choose_output(translations) if arguments.mbr else translations
                output.write(form.write(line_index, chosen))
                num_truncated += chosen[0].truncated
                line_index += 1
            output.flush()
    return num_truncated, line_index


def _make_strategy(
    arguments: argparse.Namespace, translators: list[Translator], bad_words: list[str]
) -> Strategy:
    translator = translators[0]
    strategy = make_sampling_strategy(
        arguments,
        max_positions=min(each.config.max_positions for each in translators),
        num_best=num_outputs(arguments),
        processors=make_processors(arguments, translator.tokenizer.target, bad_words),
    )
    return constrain(
        arguments,
        translator.generation,
        strategy,
        eos_id=translator.tokenizer.target.eos_id,
        vocab_size=translator.config.target_vocab_size,
    )
