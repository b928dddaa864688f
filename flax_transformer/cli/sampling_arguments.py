"""The options of sampling, and of what is forbidden in outputs."""

import argparse
import dataclasses
from collections.abc import Sequence

from flax_transformer.cli.command_parser import (
    UsageError,
    finite_float,
    non_negative_int,
    positive_int,
    to_path,
)
from flax_transformer.cli.decoding_arguments import (
    BEAM_OPTIONS,
    make_strategy,
    resolve_max_length,
)
from flax_transformer.cli.text_io import read_lines
from flax_transformer.data.text_tokenizer import TextTokenizer
from flax_transformer.decoding.logits_processors import LogitsProcessor, check_in_vocabulary
from flax_transformer.decoding.repetition import NoRepeatNgram, RepetitionPenalty
from flax_transformer.decoding.sampling import Sampling
from flax_transformer.decoding.strategies import Strategy
from flax_transformer.decoding.token_constraints import BadWords, SuppressedTokens
from flax_transformer.errors import InputError
from flax_transformer.evaluation.request_tokens import check_known
from flax_transformer.interop.generation_defaults import GenerationDefaults

_OF_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p", "seed")
_OF_BEAM_SEARCH = ("beam_size", *BEAM_OPTIONS, "constraints")


def add_sampling_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--sample`` and what belongs to it."""
    parser.add_argument(
        "--sample", action="store_true", help="draw every token at random, in place of a search"
    )
    for name, metavar, help_text in (
        ("--temperature", "T", "divides the logits; below 1 probable tokens gain (default: 1)"),
        ("--top-p", "P", "draw from the fewest tokens of probability P together"),
        ("--min-p", "P", "draw from tokens P times as probable as the most probable one or more"),
        ("--typical-p", "P", "draw from the fewest typical tokens of probability P together"),
    ):
        parser.add_argument(
            name, metavar=metavar, type=finite_float, help=f"with --sample: {help_text}"
        )
    parser.add_argument(
        "--top-k",
        metavar="K",
        type=positive_int,
        help="with --sample: draw from the K most probable tokens",
    )
    parser.add_argument(
        "--seed",
        metavar="N",
        type=non_negative_int,
        help="with --sample: the same seed gives the same line the same outputs (default: 0)",
    )
    parser.add_argument(
        "--mbr",
        metavar="N",
        type=positive_int,
        help="with --sample: of N samples, write the one most like the others by chrF",
    )


def add_constraint_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options that forbid outputs."""
    parser.add_argument(
        "--no-repeat-ngram",
        metavar="N",
        type=positive_int,
        help="never write the same N tokens in a row twice",
    )
    parser.add_argument(
        "--repetition-penalty",
        metavar="X",
        type=finite_float,
        help="multiply the log-probability of tokens that are there already by X; above 1 "
        "there is less repetition",
    )
    parser.add_argument(
        "--suppress",
        metavar="TOKEN",
        nargs="+",
        help="never write these texts of one token each, with or without a space before them",
    )
    parser.add_argument(
        "--bad-words",
        metavar="FILE",
        type=to_path,
        help="never write what a line of this file holds, as the tokenizer splits it, with or "
        "without a space before it",
    )
    add_forced_first_argument(parser)


def add_forced_first_argument(parser: argparse.ArgumentParser) -> None:
    """Add ``--forced-first-id``."""
    parser.add_argument(
        "--forced-first-id",
        metavar="ID",
        type=non_negative_int,
        help="the token, by its number in the vocabulary, that every output begins with, at no "
        "cost; such as that of a target language (default: what the model's files say)",
    )


def num_outputs(arguments: argparse.Namespace) -> int:
    """Return how many outputs of a line to search for."""
    return int(arguments.mbr or arguments.n_best)


def check_sampling_arguments(arguments: argparse.Namespace) -> None:
    """Raise UsageError if the options contradict each other, before a model is loaded."""
    if arguments.mbr is not None and (not arguments.sample or arguments.n_best > 1):
        raise UsageError("--mbr must be given with --sample, and without --n-best")
    unfit = _OF_BEAM_SEARCH if arguments.sample else _OF_SAMPLING
    for name in unfit:
        if getattr(arguments, name, None) is not None:
            option = "--" + name.replace("_", "-")
            rule = "must not be given with" if arguments.sample else "must be given with"
            raise UsageError(f"{option} {rule} --sample")
    longest = arguments.max_length or max(1, arguments.min_length)
    try:
        make_sampling_strategy(arguments, max_positions=longest, num_best=num_outputs(arguments))
        make_repetition_processors(arguments)
    except InputError as error:
        raise UsageError(str(error)) from None


def make_sampling_strategy(
    arguments: argparse.Namespace,
    *,
    max_positions: int,
    num_best: int,
    processors: tuple[LogitsProcessor, ...] = (),
) -> Strategy:
    """Return the sampling or the search that the options of ``translate`` describe."""
    if not arguments.sample:
        return make_strategy(
            arguments,
            max_positions=max_positions,
            num_best=num_best,
            processors=processors,
            needs_beam=arguments.constraints is not None,
        )
    strategy = make_sampling(
        arguments, max_positions=max_positions, num_samples=num_best, processors=processors
    )
    return dataclasses.replace(
        strategy,
        min_length_ratio=arguments.min_length_ratio,
        max_length_ratio=arguments.max_length_ratio,
    )


def make_sampling(
    arguments: argparse.Namespace,
    *,
    max_positions: int,
    num_samples: int,
    processors: tuple[LogitsProcessor, ...] = (),
) -> Sampling:
    """Return the sampling that the options describe."""
    return Sampling(
        temperature=1.0 if arguments.temperature is None else arguments.temperature,
        top_k=arguments.top_k,
        top_p=arguments.top_p,
        min_p=arguments.min_p,
        typical_p=arguments.typical_p,
        num_samples=num_samples,
        max_length=resolve_max_length(arguments, max_positions),
        min_length=arguments.min_length,
        seed=arguments.seed or 0,
        processors=processors,
    )


def make_repetition_processors(arguments: argparse.Namespace) -> tuple[LogitsProcessor, ...]:
    """Return the processors against repetition that the options describe."""
    processors: list[LogitsProcessor] = []
    if arguments.no_repeat_ngram is not None:
        processors.append(NoRepeatNgram(arguments.no_repeat_ngram))
    if arguments.repetition_penalty is not None:
        processors.append(RepetitionPenalty(arguments.repetition_penalty))
    return tuple(processors)


def make_processors(
    arguments: argparse.Namespace, tokenizer: TextTokenizer, bad_words: Sequence[str]
) -> tuple[LogitsProcessor, ...]:
    """Return all processors that the options describe; ``tokenizer`` is that of the output.

    Raises:
        InputError: a text of ``--suppress`` is not one token, or the vocabulary has not its
            characters.
    """
    processors = list(make_repetition_processors(arguments))
    if arguments.suppress is not None:
        token_ids = [_single_tokens(text, tokenizer) for text in arguments.suppress]
        processors.append(SuppressedTokens(tuple(sorted(set().union(*token_ids)))))
    if bad_words:
        sequences = {ids for word in bad_words for ids in _spellings(word, tokenizer)}
        processors.append(BadWords(tuple(sorted(sequences))))
    return tuple(processors)


def read_bad_words(arguments: argparse.Namespace) -> list[str]:
    """Return what ``--bad-words`` holds; nothing without it.

    Raises:
        InputError: the file holds no word.
    """
    if arguments.bad_words is None:
        return []
    words = [word for line in read_lines(arguments.bad_words) if (word := line.strip())]
    if not words:
        raise InputError(f"{arguments.bad_words} must hold at least one word, got none.")
    return words


def constrain(
    arguments: argparse.Namespace,
    generation: GenerationDefaults,
    strategy: Strategy,
    *,
    eos_id: int,
    vocab_size: int,
) -> Strategy:
    """Add what the files of the model ask of a search, less what the options say otherwise.

    Raises:
        InputError: the first token is none of ``vocab_size``.
    """
    first_id = choose_forced_first(arguments, generation, vocab_size=vocab_size)
    generation = dataclasses.replace(generation, forced_first_id=first_id)
    return generation.constrain(strategy, eos_id=eos_id)


def choose_forced_first(
    arguments: argparse.Namespace, generation: GenerationDefaults, *, vocab_size: int
) -> int | None:
    """Return the token that every output begins with, by the option or else by the model's files.

    Raises:
        InputError: the option names none of ``vocab_size`` tokens.
    """
    if arguments.forced_first_id is None:
        return generation.forced_first_id
    check_in_vocabulary("--forced-first-id", (arguments.forced_first_id,), vocab_size)
    return int(arguments.forced_first_id)


def _spellings(text: str, tokenizer: TextTokenizer) -> set[tuple[int, ...]]:
    """Return the tokens of ``text`` at the start of a line and after a space."""
    check_known(tokenizer, text)
    return {tuple(tokenizer.encode(text)), tuple(tokenizer.encode(f" {text}"))}


def _single_tokens(text: str, tokenizer: TextTokenizer) -> set[int]:
    """Return the tokens that spell ``text`` alone."""
    found = {ids[0] for ids in _spellings(text, tokenizer) if len(ids) == 1}
    if not found:
        raise InputError(
            f"--suppress must name texts of one token, got {text!r}. Use --bad-words for others."
        )
    return found
