"""Load trained models, ours and public ones, and save them as either."""

import os
from pathlib import Path

from jax.sharding import Mesh

from flax_transformer.errors import InputError
from flax_transformer.interop.checkpoint_reader import make_place_fn, read_checkpoint
from flax_transformer.interop.checkpoint_writer import write_checkpoint
from flax_transformer.interop.generation_defaults import (
    GENERATION_FILE,
    GenerationDefaults,
    fit_to_vocabulary,
    read_generation_defaults,
)
from flax_transformer.interop.hub import find_directory
from flax_transformer.interop.model_directory import find_model, load_model, save_model
from flax_transformer.interop.pretrained_model import Pretrained, Translator
from flax_transformer.interop.public_tokenizer import read_tokenizer, tokenizer_files
from flax_transformer.interop.replace_directory import replace_directory
from flax_transformer.interop.tensor_files import INDEX_SUFFIX, SAFETENSORS_FILE, TORCH_FILE
from flax_transformer.json_config import read_json_object
from flax_transformer.models.encoder_decoder import EncoderDecoder
from flax_transformer.models.make_model import make_model
from flax_transformer.models.transformer_config import ParameterDtype
from flax_transformer.parallel.sharding_rules import ShardingRules
from flax_transformer.run_layout import CONFIG_FILE

__all__ = [
    "Pretrained",
    "Translator",
    "load_pretrained",
    "load_translator",
    "save_model",
    "save_pretrained",
]


def load_pretrained(
    path_or_hub_id: str | os.PathLike[str],
    *,
    dtype: ParameterDtype | None = None,
    mesh: Mesh | None = None,
    rules: ShardingRules | None = None,
    revision: str | None = None,
) -> Pretrained:
    """Load a model: of a run's work directory, of a model directory, or a public one.

    Public models are those of the ``transformers`` library: a directory with ``config.json`` and
    safetensors or PyTorch's zip files, or the name of one on the Hugging Face hub. What is there
    locally is never looked for on the hub. No code of a file is run.

    Args:
        path_or_hub_id: where it is.
        dtype: of the parameters and the states; None for that of the file, or, where a public
            model's tensors are not all float32 or all bfloat16, for float32, which holds them all.
        mesh: devices to lay the parameters out over, as they are read; None for the first one.
        rules: how they lie there; None for the defaults.
        revision: branch, tag or commit of a model on the hub; None for the newest.

    Raises:
        InputError: there is no model, a file is damaged, its parts do not fit one another, or it
            is of a kind that is not supported; the message names what is wrong.
    """
    place = make_place_fn(mesh, rules)
    directory = find_directory(Path(path_or_hub_id), revision=revision)
    if not is_public(directory):
        return load_model(find_model(directory), dtype=dtype, place=place)
    member, params = read_checkpoint(directory, dtype=dtype, place=place)
    config = member.config
    generation = fit_to_vocabulary(
        read_generation_defaults(directory), config.target_vocab_size, directory
    )
    return Pretrained(
        make_model(config),
        params,
        config,
        read_tokenizer(directory, config, generation),
        generation,
        _read_labels(directory, config.num_labels),
    )


def load_translator(path_or_hub_id: str | os.PathLike[str]) -> Translator:
    """Load a model that translates text; see :func:`load_pretrained`.

    Raises:
        InputError: there is no model, or not an encoder–decoder with its tokenizers.
    """
    model, params, config, tokenizer, generation, _ = load_pretrained(path_or_hub_id)
    if not isinstance(model, EncoderDecoder):
        raise InputError(
            f"{path_or_hub_id} must be a model that translates, got architecture "
            f"{config.architecture}."
        )
    if tokenizer is None:
        raise InputError(f"{path_or_hub_id} must have a tokenizer, got a model without one.")
    return Translator(model, params, config, tokenizer, generation)


def save_pretrained(pretrained: Pretrained, path: str | os.PathLike[str]) -> None:
    """Write a model in the layout of the ``transformers`` library, in place of one there.

    Loading what this writes gives the same parameters, and so does the ``transformers`` library.
    Tensors have the dtype of the parameters: what was read from float16 is written as float32.
    Like :func:`save_model` it leaves the old directory or the new one, never half of one.

    Raises:
        InputError: none of the supported families can express the model, or a file cannot be
            written.
    """
    files = {} if pretrained.tokenizer is None else tokenizer_files(pretrained.tokenizer)

    def write(directory: Path) -> None:
        write_checkpoint(
            directory,
            pretrained.config,
            pretrained.params,
            generation=_known_tokens(pretrained),
            labels=pretrained.labels,
        )
        for name, content in files.items():
            (directory / name).write_bytes(content)

    names = {CONFIG_FILE, SAFETENSORS_FILE, GENERATION_FILE, *files}
    replace_directory(Path(path), write, may_hold=names)


def is_public(directory: Path) -> bool:
    """Tell whether a directory has the layout of the ``transformers`` library."""
    path = directory / CONFIG_FILE
    if not path.is_file():
        return False
    try:
        values = read_json_object(path)
    except InputError:
        return False  # the reader of our own directories says what is wrong with it
    # One without them may be a public one all the same, of which its reader says what is missing.
    has_torch_file = any((directory / f"{TORCH_FILE}{end}").is_file() for end in ("", INDEX_SUFFIX))
    return "model_type" in values or "architectures" in values or has_torch_file


def _read_labels(directory: Path, num_labels: int) -> tuple[str, ...]:
    """Return the names of the classes, in the order of their numbers; none without names."""
    names = read_json_object(directory / CONFIG_FILE).get("id2label") if num_labels else None
    if names is None:
        return ()
    if {str(index) for index in range(num_labels)} != names.keys():
        raise InputError(f"{directory / CONFIG_FILE}: id2label must number the classes from 0.")
    return tuple(str(names[str(index)]) for index in range(num_labels))


def _known_tokens(pretrained: Pretrained) -> GenerationDefaults:
    """Return the tokens that the model came with, or else those of its tokenizer."""
    tokenizer = pretrained.tokenizer
    if pretrained.generation != GenerationDefaults() or tokenizer is None:
        return pretrained.generation
    target = tokenizer.target
    is_pair = pretrained.config.architecture == "encoder_decoder"
    return GenerationDefaults(
        bos_id=target.bos_id,
        start_id=target.bos_id if is_pair else None,
        eos_ids=(target.eos_id,),
        pad_id=target.pad_id,
    )
