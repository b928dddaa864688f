"""``flax-transformer convert``: between this library's directories and those of public models."""

import argparse

from flax_transformer.cli.command_parser import to_path
from flax_transformer.interop.hub import find_directory
from flax_transformer.interop.pretrained import (
    is_public,
    load_pretrained,
    save_model,
    save_pretrained,
)
from flax_transformer.models.parameters import num_parameters


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.add_argument(
        "source",
        metavar="SRC",
        help="a run's work directory, a model directory, or a public model: a directory of the "
        "transformers library or a name on the Hugging Face hub",
    )
    parser.add_argument(
        "target",
        metavar="DST",
        type=to_path,
        help="directory to write; an older model there is replaced",
    )
    parser.add_argument(
        "--layout",
        choices=("ours", "transformers"),
        help="of DST: a model directory of this library, or one of the transformers library "
        "(default: the one that SRC does not have)",
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "bfloat16"),
        help="of the parameters in DST (default: as in SRC)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Convert and say what has been written; return the exit status."""
    source = find_directory(arguments.source)
    layout = arguments.layout or ("ours" if is_public(source) else "transformers")
    pretrained = load_pretrained(source, dtype=arguments.dtype)
    if layout == "ours":
        save_model(arguments.target, pretrained)
    else:
        save_pretrained(pretrained, arguments.target)
    tokenizer = "its tokenizer" if pretrained.tokenizer is not None else "no tokenizer"
    print(
        f"wrote {arguments.target} in the layout of "
        f"{'this library' if layout == 'ours' else 'the transformers library'}: "
        f"{num_parameters(pretrained.params):,} parameters and {tokenizer}"
    )
    return 0
