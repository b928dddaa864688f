"""The command ``prepare``: download and prepare a dataset, or convert a copy that is there."""

import argparse
from pathlib import Path

from flax_transformer.cli.command_parser import to_path
from flax_transformer.data.convert_tfrecord import convert_tfrecord
from flax_transformer.data.prepare import prepare_dataset
from flax_transformer.data.tfds_builders import default_data_dir


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command to its parser."""
    parser.add_argument(
        "name",
        metavar="NAME",
        help='TFDS name of a translation dataset, for example "wmt14_translate/de-en"',
    )
    parser.add_argument(
        "--data-dir",
        type=to_path,
        metavar="DIR",
        help="where TFDS keeps datasets (default: $TFDS_DATA_DIR, else ~/tensorflow_datasets)",
    )
    parser.add_argument(
        "--convert-from",
        type=to_path,
        metavar="DIR",
        help="convert the TFRECORD copy in this directory (the one with dataset_info.json) instead "
        'of downloading; needs the extra "[tf]"',
    )


def run(arguments: argparse.Namespace) -> int:
    """Prepare the dataset; print where it lies and the size of each split."""
    data_dir: Path = (arguments.data_dir or default_data_dir()).expanduser()
    if arguments.convert_from:
        tfrecord_dir = arguments.convert_from.expanduser()
        prepared = convert_tfrecord(arguments.name, tfrecord_dir, data_dir)
    else:
        prepared = prepare_dataset(arguments.name, data_dir)
    print(f"{prepared.name} is prepared in {prepared.directory}")
    for split, num_pairs in prepared.num_pairs.items():
        print(f"{split}: {num_pairs} pairs")
    return 0
