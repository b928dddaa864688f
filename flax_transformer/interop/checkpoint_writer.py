"""A model of ours written in the layout of the ``transformers`` library."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flax_transformer.array_types import Parameters
from flax_transformer.errors import InputError
from flax_transformer.interop.family_registry import FamilyMember, find_member
from flax_transformer.interop.generation_defaults import (
    GENERATION_FILE,
    GenerationDefaults,
    write_generation_defaults,
)
from flax_transformer.interop.safetensors_io import save_tensors
from flax_transformer.interop.state_dict import to_state_dict
from flax_transformer.interop.tensor_files import SAFETENSORS_FILE
from flax_transformer.models.stack import unstack_layers
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.run_layout import CONFIG_FILE
from flax_transformer.tree_paths import flatten_tree


def write_checkpoint(
    directory: Path,
    config: TransformerConfig,
    params: Parameters,
    *,
    generation: GenerationDefaults,
    labels: tuple[str, ...],
) -> None:
    """Write ``config.json``, ``model.safetensors`` and ``generation_config.json``.

    Args:
        directory: an empty directory.
        config: of the model, of a shape that one of the families has.
        params: its parameters.
        generation: tokens with a meaning and constraints of the search.
        labels: names of the classes of a classification head; empty for numbers.

    Raises:
        InputError: no family can express the config, or a file cannot be written.
    """
    member = find_member(config)
    params = unstack_layers(params) if config.scan_layers else params
    tensors = state_dict_of(member, jax.tree.map(np.asarray, params))
    save_tensors(directory / SAFETENSORS_FILE, tensors, metadata={"format": "pt"})
    tokens = write_generation_defaults(generation)
    attributes = {
        "architectures": [member.class_name],
        "model_type": member.family.model_type,
        **_token_attributes(tokens),
        **member.family.config_to(config),
        "dtype": _common_dtype(tensors),
        **_label_attributes(config, labels),
    }
    _write_json(directory / CONFIG_FILE, attributes)
    if config.architecture != "encoder_only":
        _write_json(directory / GENERATION_FILE, tokens)


def state_dict_of(member: FamilyMember, params: Parameters) -> dict[str, np.ndarray]:
    """Return a model's tensors by the names that its class has for them."""
    family = member.family
    is_base = member.class_name == family.base_class
    rules = (family.rules if is_base else family.full_rules)(member.config)
    return to_state_dict(rules, flatten_tree(params))


def _token_attributes(tokens: Mapping[str, Any]) -> dict[str, Any]:
    """Return those tokens that are attributes of the model, too."""
    # A null keeps the class from taking its default, which may be outside the vocabulary.
    named = {name: tokens.get(name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    start = tokens.get("decoder_start_token_id")
    return named if start is None else {**named, "decoder_start_token_id": start}


def _label_attributes(config: TransformerConfig, labels: tuple[str, ...]) -> dict[str, Any]:
    if not config.num_labels:
        return {}
    if labels and len(labels) != config.num_labels:
        raise InputError(
            f"labels must be as many as num_labels = {config.num_labels}, got {len(labels)}."
        )
    names = labels or tuple(f"LABEL_{index}" for index in range(config.num_labels))
    return {
        "id2label": {str(index): name for index, name in enumerate(names)},
        "label2id": {name: index for index, name in enumerate(names)},
    }


def _common_dtype(tensors: Mapping[str, np.ndarray]) -> str:
    names = {tensor.dtype.name for tensor in tensors.values()}
    return names.pop() if len(names) == 1 else "float32"


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(f"{json.dumps(values, indent=2)}\n", encoding="utf-8")
