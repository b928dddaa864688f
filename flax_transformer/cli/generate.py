"""``flax-transformer generate``: a language model continues a text."""

import argparse
import json
from pathlib import Path
from typing import NamedTuple, TextIO

from flax_transformer.array_types import Parameters
from flax_transformer.cli.command_parser import UsageError, positive_int
from flax_transformer.cli.decoding_arguments import (
    add_beam_arguments,
    add_length_arguments,
    add_model_argument,
    add_precision_argument,
)
from flax_transformer.cli.sampling_arguments import (
    add_constraint_arguments,
    add_sampling_arguments,
    check_sampling_arguments,
    make_processors,
    make_sampling_strategy,
)
from flax_transformer.cli.text_io import iterate_lines, open_input, open_output
from flax_transformer.data.sentence_pair import clean_text
from flax_transformer.data.text_tokenizer import TextTokenizer
from flax_transformer.decoding.beam_strategy import BeamSearch
from flax_transformer.decoding.greedy import Greedy
from flax_transformer.decoding.sampling import Sampling
from flax_transformer.decoding.strategies import Strategy
from flax_transformer.errors import InputError
from flax_transformer.evaluation.continue_text import Continuation, continue_texts, stream_text
from flax_transformer.interop.generation_defaults import GenerationDefaults
from flax_transformer.interop.pretrained import load_pretrained
from flax_transformer.models.decoder_only import DecoderOnly

_MAX_LENGTH = 128


class _LanguageModel(NamedTuple):
    """A :class:`Pretrained` that continues text."""

    model: DecoderOnly
    params: Parameters
    tokenizer: TextTokenizer
    generation: GenerationDefaults


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_model_argument(parser)
    parser.add_argument(
        "prompt",
        metavar="PROMPT",
        nargs="?",
        help="the beginning of the text; what follows is written as it is made (default: each "
        "line of the input is a prompt, and what follows it becomes a line)",
    )
    parser.add_argument("--input", metavar="FILE", type=Path, help="default: standard input")
    parser.add_argument("--output", metavar="FILE", type=Path, help="default: standard output")
    add_beam_arguments(parser, default_size=1)
    add_length_arguments(parser, f"{_MAX_LENGTH}, or the positions that are left")
    add_sampling_arguments(parser)
    add_constraint_arguments(parser)
    add_precision_argument(parser)
    parser.add_argument(
        "--n-best",
        metavar="N",
        type=positive_int,
        default=1,
        help="texts for a prompt; for more than 1 they are written as 'INDEX ||| TEXT ||| SCORE', "
        "where INDEX counts prompts from 0 (default: %(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="write an object for each prompt")
    # What these options of a translation say makes no sense here.
    parser.set_defaults(
        coverage_penalty=None, constraints=None, min_length_ratio=None, max_length_ratio=None
    )


def run(arguments: argparse.Namespace) -> int:
    """Continue the prompts; return the exit status."""
    if arguments.prompt is not None and arguments.input is not None:
        raise UsageError("PROMPT must not be given with --input")
    if arguments.beam_size is None and not arguments.sample:
        arguments.beam_size = 1
    arguments.max_length = arguments.max_length or max(_MAX_LENGTH, arguments.min_length)
    check_sampling_arguments(arguments, num_best=arguments.n_best)
    inputs = [] if arguments.input is None else [arguments.input]
    with (
        open_input(arguments.input) as source,
        open_output(arguments.output, inputs=inputs) as output,
    ):
        language_model = _load(arguments.model)
        strategy = _make_strategy(arguments, language_model)
        is_plain = arguments.n_best == 1 and not arguments.json
        if arguments.prompt is not None and is_plain and not isinstance(strategy, BeamSearch):
            _write_stream(arguments, language_model, strategy, output)
            return 0
        name = "standard input" if arguments.input is None else str(arguments.input)
        prompts = (
            list(iterate_lines(source, name, strict=False))
            if arguments.prompt is None
            else [arguments.prompt]
        )
        model, params, tokenizer, _ = language_model
        continuations = continue_texts(
            model, params, tokenizer, prompts, strategy=strategy, precision=arguments.precision
        )
        for index, of_prompt in enumerate(continuations):
            output.write(_format(arguments, index, of_prompt))
    return 0


def _load(path: Path) -> _LanguageModel:
    """Load a model that continues text.

    Raises:
        InputError: there is no model, or not a decoder alone with its tokenizer.
    """
    pretrained = load_pretrained(path)
    if not isinstance(pretrained.model, DecoderOnly):
        raise InputError(
            f"{path} must be a model that continues text, got architecture "
            f"{pretrained.config.architecture}."
        )
    if pretrained.tokenizer is None:
        raise InputError(f"{path} must have a tokenizer, got a model without one.")
    return _LanguageModel(
        pretrained.model, pretrained.params, pretrained.tokenizer.target, pretrained.generation
    )


def _make_strategy(arguments: argparse.Namespace, language_model: _LanguageModel) -> Strategy:
    model, _, tokenizer, generation = language_model
    strategy = make_sampling_strategy(
        arguments,
        max_positions=model.config.max_positions,
        num_best=arguments.n_best,
        processors=make_processors(arguments, tokenizer),
    )
    return generation.constrain(strategy)


def _write_stream(
    arguments: argparse.Namespace,
    language_model: _LanguageModel,
    strategy: Greedy | Sampling,
    output: TextIO,
) -> None:
    """Write what follows the prompt as it is made, and a line break."""
    model, params, tokenizer, _ = language_model
    for piece in stream_text(
        model,
        params,
        tokenizer,
        arguments.prompt,
        strategy=strategy,
        precision=arguments.precision,
    ):
        output.write(piece)
        output.flush()
    output.write("\n")


def _format(arguments: argparse.Namespace, index: int, continuations: list[Continuation]) -> str:
    """Return the lines for one prompt."""
    if arguments.json:
        objects = [continuation._asdict() for continuation in continuations]
        fields = {"index": index, "continuations": objects}
        return json.dumps(fields, ensure_ascii=False) + "\n"
    # A line must stay a line; JSON and a prompt of the command line keep what breaks it.
    texts = [clean_text(continuation.text) for continuation in continuations]
    if arguments.n_best == 1:
        return f"{texts[0] if texts else ''}\n"
    return "".join(
        f"{index} ||| {text} ||| {continuation.score:.4f}\n"
        for text, continuation in zip(texts, continuations, strict=True)
    )
