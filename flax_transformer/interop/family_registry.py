"""The families that can be read and written, and which one a directory is of."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from flax_transformer.errors import InputError
from flax_transformer.interop.attributes import Attributes
from flax_transformer.interop.families.bart import BART
from flax_transformer.interop.families.bert import BERT
from flax_transformer.interop.families.distilbert import DISTILBERT
from flax_transformer.interop.families.gpt2 import GPT2
from flax_transformer.interop.families.llama import LLAMA
from flax_transformer.interop.families.marian import MARIAN
from flax_transformer.interop.families.mistral import MISTRAL
from flax_transformer.interop.families.roberta import ROBERTA
from flax_transformer.interop.families.t5 import T5
from flax_transformer.interop.family import Family
from flax_transformer.models.transformer_config import COMPUTATION_FIELDS, TransformerConfig
from flax_transformer.tree_paths import shorten

FAMILIES: Mapping[str, Family] = {
    family.model_type: family
    for family in (BERT, DISTILBERT, ROBERTA, GPT2, T5, BART, MARIAN, LLAMA, MISTRAL)
}
"""By their names in ``config.json``."""


class FamilyMember(NamedTuple):
    """A model's family and what it is there."""

    family: Family
    class_name: str
    config: TransformerConfig


def read_member(values: Mapping[str, Any], source: str) -> FamilyMember:
    """Return what the decoded ``config.json`` of a public model describes.

    Raises:
        InputError: the family or the class is not supported, an attribute is wrong, or there is
            one that might change what the model computes and is not supported.

    >>> read_member({"model_type": "mamba"}, "config.json")
    Traceback (most recent call last):
    flax_transformer.errors.InputError: config.json: model_type must be one of bert, distilbert, \
roberta, gpt2, t5, bart, marian, llama, mistral, got 'mamba'.
    """
    attributes = Attributes(values, source)
    families = {name: name for name in FAMILIES}
    family = FAMILIES[attributes.choose("model_type", families, _type_of_class(values))]
    architectures = values.get("architectures") or [family.classes[0]]
    class_name = architectures[0] if isinstance(architectures, list) else architectures
    if class_name not in family.classes:
        raise InputError(
            f"{source}: architectures must be one of {', '.join(family.classes)}, got "
            f"{class_name!r}."
        )
    config = family.config_from(attributes, class_name)
    attributes.refuse_others(family.harmless)
    return FamilyMember(family, class_name, config)


def find_member(config: TransformerConfig) -> FamilyMember:
    """Return the family, of those that can express ``config``, whose class it fits.

    Raises:
        InputError: none can; the message says what keeps it from the nearest one.
    """
    nearest, distance = (math.inf, "none"), math.inf
    for family in FAMILIES.values():
        class_name = family.class_of(config)
        try:
            labels = {"num_labels": config.num_labels or None}
            attributes = Attributes(family.config_to(config) | labels, family.model_type)
            found = family.config_from(attributes, class_name)
        except InputError as error:
            reasons, distance = [str(error)], math.inf
        else:
            reasons = _differences(config, found)
            distance = len(reasons)
        if not reasons:
            return FamilyMember(family, class_name, config)
        if distance < nearest[0]:
            nearest = distance, f"{family.model_type} ({shorten(reasons)})"
    raise InputError(
        f"the model must be of a family of the transformers library, got another one; the nearest "
        f"is {nearest[1]}."
    )


def _differences(config: TransformerConfig, found: TransformerConfig) -> list[str]:
    """List the fields in which ``found``, read back, is another model than ``config``."""
    left, right = (_canonical(each) for each in (config, found))
    # That there is no pooler is seen by its tensors: no attribute says so.
    has_no_pooler = config.head == "none" and config.pooler == "none"
    ignored = {*COMPUTATION_FIELDS, *(("pooler",) if has_no_pooler else ())}
    return [
        f"{name} = {left.get(name)!r} instead of {right.get(name)!r}"
        for name in sorted(left.keys() | right.keys())
        if left.get(name) != right.get(name) and name not in ignored
    ]


def _canonical(config: TransformerConfig) -> dict[str, Any]:
    """Return the fields, with those spelled out that have a default of another field."""
    fields = dataclasses.asdict(config)
    fields["head_dim"] = config.head_dim or config.model_dim // config.num_heads
    fields["num_key_value_heads"] = config.num_key_value_heads or config.num_heads
    if config.architecture != "encoder_decoder":
        fields["share_source_target_embedding"] = True
    if config.architecture == "encoder_only":
        fields["share_target_output_embedding"] = True
    is_scaled = config.position_encoding == "rotary" and config.rotary_scaling != "none"
    used = {
        "sinusoid_layout": config.position_encoding == "sinusoidal",
        "rotary_base": config.position_encoding == "rotary",
        "rotary_scaling": config.position_encoding == "rotary",
        "rotary_factor": is_scaled,
        "rotary_low_frequency_factor": is_scaled and config.rotary_scaling == "llama3",
        "rotary_high_frequency_factor": is_scaled and config.rotary_scaling == "llama3",
        "rotary_original_positions": is_scaled and config.rotary_scaling == "llama3",
        "num_relative_buckets": config.position_encoding == "relative",
        "max_relative_distance": config.position_encoding == "relative",
    }
    return {name: value for name, value in fields.items() if used.get(name, True)}


def _type_of_class(values: Mapping[str, Any]) -> str:
    """Return the family of the class that ``architectures`` names, where there is no model_type."""
    architectures = values.get("architectures")
    names = architectures if isinstance(architectures, list) else []
    types = [
        name
        for name, family in FAMILIES.items()
        if any(class_name in names for class_name in family.classes)
    ]
    return types[0] if types else "nothing"
