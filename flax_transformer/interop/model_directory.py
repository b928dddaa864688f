"""The directory that this library writes a model to.

It holds ``config.json`` (the :class:`TransformerConfig`), ``model.safetensors`` (the parameters,
named by their paths, as in ``encoder/layers_0/feed_forward/…``), ``tokenizer/`` where the model has
one, and ``usage.json`` where the model has names of classes, constraints of the search or no
tokenizer.
"""

import contextlib
import dataclasses
import json
from pathlib import Path

import numpy as np

from flax_transformer.data.public_tokenizer import load_tokenizer
from flax_transformer.data.tokenizer import TranslationTokenizer
from flax_transformer.errors import InputError
from flax_transformer.interop.checkpoint_reader import PlaceFn
from flax_transformer.interop.generation_defaults import GenerationDefaults
from flax_transformer.interop.pretrained_model import Pretrained
from flax_transformer.interop.replace_directory import name_of_old, replace_directory
from flax_transformer.interop.safetensors_io import SafetensorsFile, save_tensors
from flax_transformer.json_config import config_from_json, read_json_object
from flax_transformer.models.make_model import make_model
from flax_transformer.models.parameters import abstract_parameters
from flax_transformer.models.transformer_config import ParameterDtype, TransformerConfig
from flax_transformer.run_layout import (
    CHECKPOINT_DIRECTORY,
    CONFIG_FILE,
    MODEL_DIRECTORY,
    TOKENIZER_DIRECTORY,
    WEIGHTS_FILE,
)
from flax_transformer.tree_paths import (
    describe_differences,
    flatten_tree,
    shorten,
    unflatten_tree,
)

USAGE_FILE = "usage.json"

CONTENTS = frozenset({CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_DIRECTORY, USAGE_FILE})


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Usage:
    """What ``usage.json`` holds beside what :class:`Pretrained` says of it.

    Attributes:
        generation: see there.
        labels: see there.
        has_tokenizer: whether the model was saved with one.
    """

    generation: GenerationDefaults = dataclasses.field(default_factory=GenerationDefaults)
    labels: tuple[str, ...] = ()
    has_tokenizer: bool = True


def save_model(directory: Path, pretrained: Pretrained) -> None:
    """Write a model directory, in place of the one that may be there.

    It is written under another name, read back, and renamed when it is complete: an interruption
    leaves the old directory or the new one, never half of one.

    Raises:
        InputError: the model and the tokenizer do not fit, or a file cannot be written.
    """
    check_vocabularies(pretrained.config, pretrained.tokenizer, directory)
    usage = _Usage(
        generation=pretrained.generation,
        labels=pretrained.labels,
        has_tokenizer=pretrained.tokenizer is not None,
    )

    def write(new: Path) -> None:
        text = json.dumps(dataclasses.asdict(pretrained.config), indent=2)
        (new / CONFIG_FILE).write_text(f"{text}\n", encoding="utf-8")
        save_tensors(new / WEIGHTS_FILE, flatten_tree(pretrained.params))
        if pretrained.tokenizer is not None:
            pretrained.tokenizer.save(new / TOKENIZER_DIRECTORY)
        if usage != _Usage():
            text = json.dumps(dataclasses.asdict(usage), indent=2)
            (new / USAGE_FILE).write_text(f"{text}\n", encoding="utf-8")

    replace_directory(directory, write, may_hold=CONTENTS)


def load_model(path: Path, *, dtype: ParameterDtype | None, place: PlaceFn) -> Pretrained:
    """Load a model directory; arguments as for :func:`~.checkpoint_reader.read_checkpoint`.

    Raises:
        InputError: a file is missing or damaged, or config, parameters and tokenizer do not fit
            one another; the message names what is wrong. Nothing is loaded in part.
    """
    config = config_from_json(
        TransformerConfig, read_json_object(path / CONFIG_FILE), str(path / CONFIG_FILE)
    )
    usage = _Usage()
    if (path / USAGE_FILE).exists():
        usage = config_from_json(
            _Usage, read_json_object(path / USAGE_FILE), str(path / USAGE_FILE)
        )
    tokenizer = load_tokenizer(path / TOKENIZER_DIRECTORY) if usage.has_tokenizer else None
    check_vocabularies(config, tokenizer, path)
    model = make_model(config)
    expected = flatten_tree(abstract_parameters(model))
    if dtype is not None:
        config = dataclasses.replace(config, param_dtype=dtype, compute_dtype=dtype)
        model = make_model(config)
    with contextlib.ExitStack() as stack:
        file = SafetensorsFile(path / WEIGHTS_FILE, stack)
        if differences := describe_differences(expected, file.signatures):
            raise InputError(
                f"{path / WEIGHTS_FILE} must fit {CONFIG_FILE} beside it, but "
                f"{shorten(differences)}."
            )
        params = {
            name: place(name, _as_parameter(file.read(name), dtype, f"{file.path}: {name}"))
            for name in file.signatures
        }
    return Pretrained(
        model, unflatten_tree(params), config, tokenizer, usage.generation, usage.labels
    )


def _as_parameter(array: np.ndarray, dtype: ParameterDtype | None, name: str) -> np.ndarray:
    if not np.isfinite(array).all():
        raise InputError(f"{name} must hold finite values, got NaN or infinity.")
    return array if dtype is None else array.astype(np.dtype(dtype))


def find_model(directory: Path) -> Path:
    """Find the model directory: the one given, or that of the run given.

    Raises:
        InputError: there is none.
    """
    if (directory / WEIGHTS_FILE).is_file():
        return directory
    for path in (directory / MODEL_DIRECTORY, directory):
        # Where a process was killed between the two renamings of an export, the old one stands.
        for candidate in (path, name_of_old(path)):
            if candidate.is_dir() and candidate != directory:
                return candidate
    if (directory / CHECKPOINT_DIRECTORY).is_dir():
        raise InputError(
            f"{directory} has no model yet. Wait for the run's first evaluation, or make one with "
            f"`flax-transformer average {directory}`."
        )
    if not directory.is_dir():
        raise InputError(f"{directory} must be a directory, got nothing there.")
    raise InputError(
        f"{directory} must be a run's work directory or a model directory, got one without "
        f"{MODEL_DIRECTORY}/ and {WEIGHTS_FILE}."
    )


def check_vocabularies(
    config: TransformerConfig, tokenizer: TranslationTokenizer | None, directory: Path
) -> None:
    """Raise InputError if a tokenizer has another number of tokens than the model."""
    if tokenizer is None:
        return
    tokenizer_sizes = tokenizer.source.vocab_size, tokenizer.target.vocab_size
    config_sizes = config.source_vocab_size, config.target_vocab_size
    if tokenizer_sizes != config_sizes:
        raise InputError(
            f"model {directory} must have the vocabularies of its tokenizer, got (source, target) "
            f"{config_sizes} in the config and {tokenizer_sizes} in the tokenizer."
        )
