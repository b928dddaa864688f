"""``flax-transformer card``: what a model is, as far as its files say."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax_transformer.cli.command_parser import UsageError, finite_float, to_path
from flax_transformer.cli.decoding_arguments import add_model_argument
from flax_transformer.cli.text_io import open_output
from flax_transformer.config import ExperimentConfig, load_config
from flax_transformer.data.sources import describe_direction
from flax_transformer.errors import InputError
from flax_transformer.experiment.run_time import measure_run_time
from flax_transformer.interop.family_registry import find_member
from flax_transformer.interop.hub import find_directory
from flax_transformer.interop.pretrained import Pretrained, load_pretrained
from flax_transformer.json_config import read_json_object
from flax_transformer.models.parameters import num_parameters
from flax_transformer.run_layout import CHECKPOINT_DIRECTORY, CONFIG_FILE, RESULTS_FILE

_ARCHITECTURES = {
    "encoder_decoder": "Transformer of an encoder and a decoder",
    "encoder_only": "Transformer encoder",
    "decoder_only": "Transformer decoder",
}

_HEADS = {
    "masked_lm": ", which predicts hidden tokens",
    "sequence_classification": ", which classifies texts",
    "token_classification": ", which classifies tokens",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    add_model_argument(parser)
    parser.add_argument("--output", metavar="FILE", type=to_path, help="default: standard output")
    parser.add_argument(
        "--power",
        metavar="WATTS",
        type=finite_float,
        help="power that all machines of the training drew together, on average; the energy is "
        "this times the time that the run's files show (default: energy is not stated)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Write the card, in Markdown; return the exit status."""
    if arguments.power is not None and arguments.power <= 0:
        raise UsageError(f"--power must be above 0, got {arguments.power}")
    directory = find_directory(arguments.model)
    experiment = _read_experiment(directory)
    results = {}
    if (directory / RESULTS_FILE).is_file():
        results = read_json_object(directory / RESULTS_FILE)
    seconds = None if experiment is None else measure_run_time(directory)
    pretrained = load_pretrained(directory)
    name = directory.resolve().name if arguments.model.exists() else arguments.model
    sections = {
        f"# {name}": describe_model(pretrained),
        "## Sizes": describe_sizes(pretrained),
        "## Data": describe_data(experiment),
        "## Scores": describe_scores(results),
        "## Energy": [describe_energy(seconds, arguments.power)],
        "## Limits": describe_limits(pretrained),
    }
    with open_output(arguments.output) as output:
        text = "\n\n".join(
            f"{title}\n\n" + "\n".join(lines) for title, lines in sections.items() if lines
        )
        output.write(f"{text}\n")
    return 0


def describe_model(pretrained: Pretrained) -> list[str]:
    """Say in a sentence what the model is, and which public family has its shape."""
    config = pretrained.config
    lines = [f"A {_ARCHITECTURES[config.architecture]}{_HEADS.get(config.head, '')}."]
    try:
        family = find_member(config)
    except InputError:
        lines.append("It has the shape of no supported family of the transformers library.")
    else:
        lines.append(f"It has the shape of the transformers library's {family.class_name}.")
    return lines


def describe_sizes(pretrained: Pretrained) -> list[str]:
    """Return the rows of a table of sizes."""
    config = pretrained.config
    layers = {"encoder": config.num_encoder_layers, "decoder": config.num_decoder_layers}
    vocabularies = sorted({config.source_vocab_size, config.target_vocab_size})
    sizes = {
        "parameters": f"{num_parameters(pretrained.params):,} of {config.param_dtype}",
        "layers": ", ".join(f"{number} {name}" for name, number in layers.items() if number),
        "model dimension": f"{config.model_dim:,}",
        "attention heads": str(config.num_heads),
        "feed-forward dimension": f"{config.feed_forward_dim:,}",
        "vocabulary": " and ".join(f"{size:,}" for size in vocabularies),
        "positions": f"{config.max_positions:,}",
        "classes": ", ".join(pretrained.labels) or str(config.num_labels or ""),
    }
    rows = [f"| {name} | {value} |" for name, value in sizes.items() if value]
    return ["| size | value |", "| --- | --- |", *rows]


def describe_data(experiment: ExperimentConfig | None) -> list[str]:
    """Say what the model was trained on, if its run is there."""
    if experiment is None:
        return ["Not stated: the model's files do not say what it was trained on."]
    data, training = experiment.data, experiment.training
    lines = [f"- data set: {data.dataset} ({data.kind})"]
    if training.task == "translation":
        lines.append(f"- direction: {describe_direction(data)}")
    lines += [
        f"- task: {training.task.replace('_', ' ')}",
        f"- splits: {data.train} to train, {data.dev} to choose, {data.test or 'none'} to test",
        f"- seed: {training.seed}",
    ]
    return lines


def describe_scores(results: Mapping[str, Any]) -> list[str]:
    """List the scores of a run, with the signatures of the metrics.

    >>> describe_scores({"test_bleu": 31.254, "signatures": {"bleu": "tok:13a"}})
    ['- test_bleu: 31.25 (tok:13a)']
    """
    signatures = results.get("signatures", {})
    lines = []
    for name, value in results.items():
        if name.startswith(("dev_", "test_")) and isinstance(value, int | float):
            signature = signatures.get(name.removeprefix("test_"))
            lines.append(f"- {name}: {value:.4g}" + (f" ({signature})" if signature else ""))
    return lines or ["None known: there is no results.json of a finished run."]


def describe_energy(seconds: float | None, power: float | None) -> str:
    """Say what the training took, as far as it is known.

    >>> describe_energy(7200.0, 300.0)
    '0.6 kWh: 2 hours that were measured (all but start and test), times 300 W that were assumed.'
    """
    if seconds is None:
        return "Not measured: there is no record of the time that the training took."
    hours = f"{seconds / 3600:.3g} hours"
    if power is None:
        return (
            f"Not measured. The training took {hours}; `--power` with the power that its machines "
            "drew gives the energy."
        )
    return (
        f"{seconds / 3600 * power / 1000:.3g} kWh: {hours} that were measured (all but start and "
        f"test), times {power:g} W that were assumed."
    )


def describe_limits(pretrained: Pretrained) -> list[str]:
    """List what follows from the config, and what nobody has looked at."""
    config = pretrained.config
    lines = [f"- It reads at most {config.max_positions:,} tokens; what is longer is cut."]
    if pretrained.tokenizer is None:
        lines.append("- It has no tokenizer here: text must be given as token ids.")
    lines += [
        "- Scores hold for text like the test set's, and for no other.",
        "- What it says has not been checked for truth, bias or harm.",
    ]
    return lines


def _read_experiment(directory: Path) -> ExperimentConfig | None:
    """Return the config of a run; None where the directory is only a model's."""
    if not (directory / CHECKPOINT_DIRECTORY).is_dir():
        return None
    return load_config(directory / CONFIG_FILE)
