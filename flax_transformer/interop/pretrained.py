"""Save and load a trained model with all that is needed to use it.

A model directory holds ``config.json`` (the :class:`TransformerConfig`), ``model.safetensors``
(the parameters, named by their paths, as in ``encoder/layers_0/feed_forward/…``) and
``tokenizer/``.
"""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from flax_transformer.array_types import Parameters
from flax_transformer.data.tokenizer import TranslationTokenizer
from flax_transformer.errors import InputError
from flax_transformer.interop.safetensors_io import load_tensors, save_tensors
from flax_transformer.json_config import config_from_json, read_json_object
from flax_transformer.models.encoder_decoder import EncoderDecoder
from flax_transformer.models.parameters import abstract_parameters
from flax_transformer.models.transformer_config import TransformerConfig
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


class Pretrained(NamedTuple):
    """A trained model, ready for use."""

    model: EncoderDecoder
    params: Parameters
    config: TransformerConfig
    tokenizer: TranslationTokenizer


def save_model(directory: Path, pretrained: Pretrained) -> None:
    """Write a model directory, in place of the one that may be there.

    It is written under another name, read back, and renamed when it is complete: an interruption
    leaves the old directory or the new one, never half of one.

    Raises:
        InputError: the model and the tokenizer do not fit, or a file cannot be written.
    """
    _check_vocabularies(pretrained.config, pretrained.tokenizer, directory)
    directory = directory.absolute()
    _check_replaceable(directory)
    new = directory.with_name(f".{directory.name}.new")
    old = _name_of_old(directory)
    try:
        shutil.rmtree(new, ignore_errors=True)  # what a process that was killed left there
        new.mkdir(parents=True)
        text = json.dumps(dataclasses.asdict(pretrained.config), indent=2)
        (new / CONFIG_FILE).write_text(f"{text}\n", encoding="utf-8")
        save_tensors(new / WEIGHTS_FILE, flatten_tree(pretrained.params))
        pretrained.tokenizer.save(new / TOKENIZER_DIRECTORY)
        _exchange(directory, new, old)
    except OSError as error:
        raise InputError(f"model {directory} cannot be written: {error}.") from error
    finally:
        shutil.rmtree(new, ignore_errors=True)


def load_pretrained(directory: str | os.PathLike[str]) -> Pretrained:
    """Load the model of a run's work directory, or of a model directory.

    Raises:
        InputError: there is no model, a file is damaged, or config, parameters and tokenizer do
            not fit one another; the message names what is wrong. Nothing is loaded in part.
    """
    path = _find_model(Path(directory))
    config = config_from_json(
        TransformerConfig, read_json_object(path / CONFIG_FILE), str(path / CONFIG_FILE)
    )
    tokenizer = TranslationTokenizer.load(path / TOKENIZER_DIRECTORY)
    _check_vocabularies(config, tokenizer, path)
    model = EncoderDecoder(config)
    tensors = load_tensors(path / WEIGHTS_FILE)
    if differences := describe_differences(flatten_tree(abstract_parameters(model)), tensors):
        raise InputError(
            f"{path / WEIGHTS_FILE} must fit {CONFIG_FILE} beside it, but {shorten(differences)}."
        )
    not_finite = [name for name, tensor in tensors.items() if not np.isfinite(tensor).all()]
    if not_finite:
        raise InputError(
            f"{path / WEIGHTS_FILE} must hold finite values, got NaN or infinity in "
            f"{shorten(not_finite)}."
        )
    params = unflatten_tree({name: jnp.asarray(tensor) for name, tensor in tensors.items()})
    return Pretrained(model, params, config, tokenizer)


def _check_replaceable(directory: Path) -> None:
    """Raise InputError if ``directory`` holds anything else than a model: it would be lost."""
    if not directory.exists():
        return
    names = {path.name for path in directory.iterdir()} if directory.is_dir() else {"a file"}
    others = sorted(names - {CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_DIRECTORY})
    if others:
        raise InputError(
            f"{directory} must be new, empty or a model directory to be written to, "
            f"got {shorten(others)} in it."
        )


def _exchange(directory: Path, new: Path, old: Path) -> None:
    """Put ``new`` in the place of ``directory``, or leave ``directory`` as it is."""
    if not directory.exists():
        new.rename(directory)
        return
    shutil.rmtree(old, ignore_errors=True)
    directory.rename(old)
    try:
        new.rename(directory)
    except BaseException:
        old.rename(directory)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _name_of_old(directory: Path) -> Path:
    """Return what a model directory is called while another one takes its place."""
    absolute = directory.absolute()
    return absolute.parent / f".{absolute.name}.old"


def _find_model(directory: Path) -> Path:
    """Find the model directory: the one given, or that of the run given."""
    if (directory / WEIGHTS_FILE).is_file():
        return directory
    for path in (directory / MODEL_DIRECTORY, directory):
        # Where a process was killed between the two renamings of an export, the old one stands.
        for candidate in (path, _name_of_old(path)):
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


def _check_vocabularies(
    config: TransformerConfig, tokenizer: TranslationTokenizer, directory: Path
) -> None:
    tokenizer_sizes = tokenizer.source.vocab_size, tokenizer.target.vocab_size
    config_sizes = config.source_vocab_size, config.target_vocab_size
    if tokenizer_sizes != config_sizes:
        raise InputError(
            f"model {directory} must have the vocabularies of its tokenizer, got (source, target) "
            f"{config_sizes} in the config and {tokenizer_sizes} in the tokenizer."
        )
