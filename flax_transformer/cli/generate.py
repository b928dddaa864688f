"""``flax-transformer generate``: a language model continues a text."""

import argparse
from pathlib import Path
from typing import NamedTuple, TextIO

from flax_transformer.array_types import Parameters
from flax_transformer.cli.command_parser import UsageError, to_path
from flax_transformer.cli.decoding_arguments import (
    add_beam_arguments,
    add_length_arguments,
    add_model_argument,
    add_precision_argument,
)
from flax_transformer.cli.model_arguments import (
    add_combination_arguments,
    make_combination,
    other_models,
)
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
from flax_transformer.cli.text_io import open_output
from flax_transformer.cli.translation_format import (
    TranslationFormat,
    add_format_arguments,
    choose_output,
)
from flax_transformer.data.text_tokenizer import TextTokenizer
from flax_transformer.decoding.beam_strategy import BeamSearch
from flax_transformer.decoding.greedy import Greedy
from flax_transformer.decoding.sampling import Sampling
from flax_transformer.decoding.strategies import Strategy
from flax_transformer.errors import InputError
from flax_transformer.evaluation.continue_text import continue_texts, stream_text
from flax_transformer.evaluation.translation import Request
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
        help="the beginning of the text; what follows is written as it is made, where it is a "
        "single text (default: each line of the input is a prompt, and what follows it becomes a "
        "line)",
    )
    parser.add_argument("--input", metavar="FILE", type=to_path, help="default: standard input")
    parser.add_argument("--output", metavar="FILE", type=to_path, help="default: standard output")
    add_combination_arguments(parser)
    add_beam_arguments(parser, default_size=1)
    add_length_arguments(parser, f"{_MAX_LENGTH}, or the positions that are left")
    add_sampling_arguments(parser)
    add_constraint_arguments(parser)
    add_request_arguments(parser)
    add_precision_argument(parser)
    add_format_arguments(parser)
    # There is no source to cover.
    parser.set_defaults(coverage_penalty=None)


def run(arguments: argparse.Namespace) -> int:
    """Continue the prompts; return the exit status."""
    if arguments.prompt is not None and arguments.input is not None:
        raise UsageError("PROMPT must not be given with --input")
    if arguments.scores and arguments.n_best > 1:
        raise UsageError("--scores must not be given with --n-best, which writes scores itself")
    if arguments.beam_size is None and not arguments.sample:
        arguments.beam_size = 1
    arguments.max_length = arguments.max_length or max(_MAX_LENGTH, arguments.min_length)
    check_sampling_arguments(arguments)
    make_combination(arguments)
    with (
        # First, since a fault of a file is sooner found than a model loaded.
        open_requests(arguments, prompt=arguments.prompt, strict=False) as requests,
        open_output(arguments.output, inputs=input_files(arguments)) as output,
    ):
        bad_words = read_bad_words(arguments)
        prompts = list(requests)
        language_models = _load_all(arguments)
        strategy = _make_strategy(arguments, language_models, bad_words)
        if _is_streamed(arguments) and not isinstance(strategy, BeamSearch):
            _write_stream(arguments, language_models[0], strategy, output)
        else:
            _write_lines(arguments, language_models, prompts, strategy, output)
    return 0


def _is_streamed(arguments: argparse.Namespace) -> bool:
    """Tell whether there is a single text, and nothing else, to write."""
    others = (arguments.scores, arguments.json, arguments.prefix, other_models(arguments))
    is_single = num_outputs(arguments) == 1 and not any(others)
    return arguments.prompt is not None and is_single


def _load_all(arguments: argparse.Namespace) -> list[_LanguageModel]:
    """Load the models.

    Raises:
        InputError: they have different tokenizers.
    """
    others = other_models(arguments)
    models = [_load(path) for path in (arguments.model, *others)]
    for path, each in zip(others, models[1:], strict=True):
        if each.tokenizer.model != models[0].tokenizer.model:
            raise InputError(f"{path} must have the tokenizer of {arguments.model}.")
    return models


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


def _make_strategy(
    arguments: argparse.Namespace, language_models: list[_LanguageModel], bad_words: list[str]
) -> Strategy:
    model, _, tokenizer, generation = language_models[0]
    strategy = make_sampling_strategy(
        arguments,
        max_positions=min(each.model.config.max_positions for each in language_models),
        num_best=num_outputs(arguments),
        processors=make_processors(arguments, tokenizer, bad_words),
    )
    return constrain(
        arguments,
        generation,
        strategy,
        eos_id=tokenizer.eos_id,
        vocab_size=model.config.target_vocab_size,
    )


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


def _write_lines(
    arguments: argparse.Namespace,
    language_models: list[_LanguageModel],
    prompts: list[Request],
    strategy: Strategy,
    output: TextIO,
) -> None:
    """Write what follows each prompt, a line or several for each."""
    continuations = continue_texts(
        tuple(each.model for each in language_models),
        tuple(each.params for each in language_models),
        language_models[0].tokenizer,
        prompts,
        strategy=strategy,
        combine=make_combination(arguments),
        precision=arguments.precision,
    )
    form = TranslationFormat(
        n_best=arguments.n_best > 1,
        scores=arguments.scores,
        as_json=arguments.json,
        name="continuations",
    )
    for index, of_prompt in enumerate(continuations):
        output.write(form.write(index, choose_output(of_prompt) if arguments.mbr else of_prompt))
