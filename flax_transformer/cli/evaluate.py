"""``flax-transformer evaluate``: translate a test set and score the translations."""

import argparse
import contextlib
import json

from flax_transformer.cli.command_parser import to_path
from flax_transformer.cli.decoding_arguments import (
    add_decoding_arguments,
    add_model_argument,
    check_decoding_arguments,
    make_decoding_mesh,
    make_strategy,
)
from flax_transformer.cli.progress import progress_bar
from flax_transformer.cli.text_io import open_output, read_lines
from flax_transformer.errors import InputError
from flax_transformer.evaluation.metrics import Scores, corpus_scores
from flax_transformer.evaluation.translate import translate
from flax_transformer.interop.pretrained import load_translator

_TITLES = {"bleu": "BLEU", "chrf": "chrF", "ter": "TER"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_model_argument(parser)
    parser.add_argument(
        "--source", metavar="FILE", type=to_path, required=True, help="text to translate"
    )
    parser.add_argument(
        "--reference",
        metavar="FILE",
        type=to_path,
        required=True,
        help="its translations, untouched by any tokenisation",
    )
    parser.add_argument("--output", metavar="FILE", type=to_path, help="keep the translations here")
    parser.add_argument("--json", action="store_true", help="write one JSON object")
    add_decoding_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Translate and score; return the exit status."""
    check_decoding_arguments(arguments)
    sources = read_lines(arguments.source)
    references = read_lines(arguments.reference)
    if len(sources) != len(references):
        raise InputError(
            f"{arguments.source} and {arguments.reference} must have equally many lines, "
            f"got {len(sources)} and {len(references)}."
        )
    if not sources:
        raise InputError(f"{arguments.source} must hold at least one line, got none.")
    inputs = [arguments.source, arguments.reference]
    with (
        # First, since a fault of a file is sooner found than a set translated.
        open_output(arguments.output, inputs=inputs)
        if arguments.output is not None
        else contextlib.nullcontext() as output,
        progress_bar(len(sources)) as progress,
    ):
        pretrained = load_translator(arguments.model)
        translations = translate(
            pretrained.model,
            pretrained.params,
            pretrained.tokenizer,
            sources,
            strategy=pretrained.generation.constrain(
                make_strategy(arguments, max_positions=pretrained.config.max_positions),
                eos_id=pretrained.tokenizer.target.eos_id,
            ),
            precision=arguments.precision,
            batch_tokens=arguments.batch_tokens,
            max_source_length=arguments.max_source_length,
            limit_by_source=arguments.max_length is None,
            mesh=make_decoding_mesh(arguments),
            progress=progress,
        )
        best = [hypotheses[0] for hypotheses in translations]
        if output is not None:
            output.writelines(f"{translation.text}\n" for translation in best)
    scores = corpus_scores([translation.text for translation in best], references)
    num_truncated = sum(translation.truncated for translation in best)
    print(format_scores(scores, len(best), num_truncated, as_json=arguments.json))
    return 0


def format_scores(scores: Scores, num_lines: int, num_truncated: int, *, as_json: bool) -> str:
    """Return the scores with their signatures, as a table or a JSON object.

    >>> scores = Scores(25.0, 50.0, 60.0, {"bleu": "tok:13a", "chrf": "nc:6", "ter": "tok:tercom"})
    >>> print(format_scores(scores, 1000, 2, as_json=False))
    BLEU  25.00  tok:13a
    chrF  50.00  nc:6
    TER   60.00  tok:tercom
    1000 lines, 2 translations cut at the length limit
    """
    if as_json:
        return json.dumps(
            {**scores._asdict(), "num_lines": num_lines, "num_truncated": num_truncated}
        )
    values = scores._asdict()
    lines = [
        f"{title:4}  {values[name]:.2f}  {scores.signatures[name]}"
        for name, title in _TITLES.items()
    ]
    summary = f"{num_lines} lines, {num_truncated} translations cut at the length limit"
    return "\n".join([*lines, summary])
