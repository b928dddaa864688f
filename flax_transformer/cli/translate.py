"""``flax-transformer translate``: text in, translations out, a line for a line."""

import argparse
import contextlib
import itertools
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from flax_transformer.cli.command_parser import UsageError, positive_int
from flax_transformer.cli.decoding_arguments import (
    add_decoding_arguments,
    add_model_argument,
    make_decoding_mesh,
)
from flax_transformer.cli.progress import progress_bar
from flax_transformer.cli.sampling_arguments import (
    add_constraint_arguments,
    add_sampling_arguments,
    check_sampling_arguments,
    make_processors,
    make_sampling_strategy,
)
from flax_transformer.cli.text_io import count_lines, iterate_lines, open_input, open_output
from flax_transformer.cli.translation_format import TranslationFormat
from flax_transformer.decoding.minimum_bayes_risk import minimum_bayes_risk
from flax_transformer.decoding.strategies import Strategy
from flax_transformer.errors import InputError
from flax_transformer.evaluation.metrics import sentence_chrf
from flax_transformer.evaluation.translate import translate_windows
from flax_transformer.evaluation.translation import Request, Translation
from flax_transformer.interop.pretrained import Translator, load_translator

_logger = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_model_argument(parser)
    parser.add_argument("--input", metavar="FILE", type=Path, help="default: standard input")
    parser.add_argument("--output", metavar="FILE", type=Path, help="default: standard output")
    parser.add_argument(
        "--ensemble",
        metavar="MODEL",
        nargs="+",
        type=Path,
        default=[],
        help="further models of the same tokenizer: average the probabilities of all",
    )
    add_decoding_arguments(parser)
    add_sampling_arguments(parser)
    parser.add_argument(
        "--mbr",
        metavar="N",
        type=positive_int,
        help="with --sample: of N samples, write the one most like the others by chrF",
    )
    add_constraint_arguments(parser)
    parser.add_argument(
        "--constraints",
        metavar="FILE",
        type=Path,
        help="texts that the translation of each line must hold: a line for a line, texts "
        "separated by tabs",
    )
    parser.add_argument(
        "--prefix",
        metavar="FILE",
        type=Path,
        help="how the translation of each line must begin: a line for a line",
    )
    _add_output_arguments(parser)
    parser.add_argument(
        "--window",
        metavar="N",
        type=positive_int,
        help="lines that are read, sorted by length and translated together "
        "(default: as many as a batch has tokens, and 1 when standard input is a terminal)",
    )
    parser.add_argument(
        "--streams",
        metavar="N",
        type=positive_int,
        default=1,
        help="batches that are worked at together; on a CPU 2 use the cores better "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--strict",
        action="store_true",
        help="stop at a line that is not UTF-8 (default: read its invalid bytes as U+FFFD)",
    )


def _add_output_arguments(parser: argparse.ArgumentParser) -> None:
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
        "--alignment",
        action="store_true",
        help="write the alignment after each translation: pairs I-J of words, counted from 0 "
        "between spaces, of which a token of word J of the translation attends most to one of "
        "word I of the line",
    )
    parser.add_argument(
        "--json", action="store_true", help="write an object for each line, with all of the above"
    )


def run(arguments: argparse.Namespace) -> int:
    """Translate; return the exit status."""
    _check_arguments(arguments)
    inputs = [
        path
        for path in (arguments.input, arguments.constraints, arguments.prefix)
        if path is not None
    ]
    with (
        # First, since a fault of a file is sooner found than a model loaded.
        _open_requests(arguments) as requests,
        open_output(arguments.output, inputs=inputs) as output,
    ):
        translators = _load(arguments)
        num_truncated, num_lines = _translate(arguments, translators, requests, output)
    if num_truncated:
        _logger.warning(
            "%d of %d translations were cut at the length limit", num_truncated, num_lines
        )
    return 0


def _check_arguments(arguments: argparse.Namespace) -> None:
    """Raise UsageError if the options contradict each other."""
    if arguments.mbr is not None and (not arguments.sample or arguments.n_best > 1):
        raise UsageError("--mbr must be given with --sample, and without --n-best")
    if arguments.scores and arguments.n_best > 1:
        raise UsageError("--scores must not be given with --n-best, which writes scores itself")
    check_sampling_arguments(arguments, num_best=_num_outputs(arguments))


def _num_outputs(arguments: argparse.Namespace) -> int:
    return arguments.mbr or arguments.n_best


@contextlib.contextmanager
def _open_requests(arguments: argparse.Namespace) -> Iterator[Iterator[Request]]:
    """Read the lines, with the constraints and prefixes that are given for them."""
    with contextlib.ExitStack() as stack:

        def lines_of(path: Path | None, name: str) -> Iterator[str]:
            stream = stack.enter_context(open_input(path))
            return iterate_lines(stream, name, strict=arguments.strict)

        name = "standard input" if arguments.input is None else str(arguments.input)
        sides = [
            itertools.repeat("") if path is None else lines_of(path, str(path))
            for path in (arguments.prefix, arguments.constraints)
        ]
        yield _join_requests(lines_of(arguments.input, name), *sides)


def _join_requests(
    lines: Iterator[str], prefixes: Iterator[str], constraints: Iterator[str]
) -> Iterator[Request]:
    """Yield a request for each line.

    Raises:
        InputError: there are fewer prefixes or constraints than lines.
    """
    for number, line in enumerate(lines, start=1):
        prefix, texts = next(prefixes, None), next(constraints, None)
        if prefix is None or texts is None:
            option = "--prefix" if prefix is None else "--constraints"
            raise InputError(
                f"{option} must have a line for each line, got none for line {number}."
            )
        yield Request(line, prefix, tuple(texts.split("\t")))


def _load(arguments: argparse.Namespace) -> list[Translator]:
    """Load the models.

    Raises:
        InputError: they have different tokenizers.
    """
    translators = [load_translator(path) for path in (arguments.model, *arguments.ensemble)]
    sides = [(each.tokenizer.source.model, each.tokenizer.target.model) for each in translators]
    for path, of_model in zip(arguments.ensemble, sides[1:], strict=True):
        if of_model != sides[0]:
            raise InputError(f"{path} must have the tokenizer of {arguments.model}.")
    return translators


def _translate(
    arguments: argparse.Namespace,
    translators: list[Translator],
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
            strategy=_make_strategy(arguments, translators),
            precision=arguments.precision,
            batch_tokens=arguments.batch_tokens,
            max_source_length=arguments.max_source_length,
            with_alignment=arguments.alignment,
            num_streams=arguments.streams,
            window_size=arguments.window
            or (1 if is_interactive else max(2000, arguments.batch_tokens)),
            mesh=make_decoding_mesh(arguments),
            progress=progress,
        ):
            for translations in window:
                chosen = _choose(translations) if arguments.mbr else translations
                output.write(form.write(line_index, chosen))
                num_truncated += chosen[0].truncated
                line_index += 1
            output.flush()
    return num_truncated, line_index


def _make_strategy(arguments: argparse.Namespace, translators: list[Translator]) -> Strategy:
    translator = translators[0]
    strategy = make_sampling_strategy(
        arguments,
        max_positions=min(each.config.max_positions for each in translators),
        num_best=_num_outputs(arguments),
        processors=make_processors(arguments, translator.tokenizer.target),
    )
    return translator.generation.constrain(strategy)


def _choose(samples: list[Translation]) -> list[Translation]:
    """Return the sample of the greatest expected chrF, as the only one."""
    texts = [sample.text for sample in samples]
    return [samples[minimum_bayes_risk(texts, sentence_chrf)]]
