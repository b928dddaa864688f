"""The attributes of rotary positions, as the families that have them name them."""

from collections.abc import Mapping
from typing import Any

from flax_transformer.interop.attributes import Attributes
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.nn.rotary import RotaryScaling

_BASE = 10_000.0

_SCALINGS: Mapping[str, RotaryScaling] = {"default": "none", "linear": "linear", "llama3": "llama3"}


def read_rotary(attributes: Attributes) -> dict[str, Any]:
    """Read the fields of rotary positions, from where they lie today or where they lay before.

    ``rope_parameters`` is the newer of the two names; a file has one of them. The base may lie
    within, or beside it.

    Raises:
        InputError: the kind of scaling is not supported, or both names are given and differ.
    """
    name = "rope_scaling" if attributes.has("rope_scaling") else "rope_parameters"
    table = attributes.table(name)
    if name == "rope_scaling" and attributes.has("rope_parameters"):
        attributes.expect("rope_parameters", attributes.value(name))
    kind = "rope_type" if table.has("rope_type") or not table.has("type") else "type"
    scaling: RotaryScaling = table.choose(kind, _SCALINGS, "default")
    table.expect("type", table.text("rope_type", table.text("type", "default")))
    table.expect("partial_rotary_factor", 1.0)
    base = table.number("rope_theta", attributes.number("rope_theta", _BASE))
    fields: dict[str, Any] = {"rotary_base": base, "rotary_scaling": scaling}
    if scaling != "none":
        fields["rotary_factor"] = table.number("factor")
    if scaling == "llama3":
        fields |= {
            "rotary_low_frequency_factor": table.number("low_freq_factor"),
            "rotary_high_frequency_factor": table.number("high_freq_factor"),
            "rotary_original_positions": table.integer("original_max_position_embeddings"),
        }
    # What a table of no scaling says of scaling is not read there, either.
    table.refuse_others({"factor"} if scaling == "none" else ())
    return fields


def write_rotary(config: TransformerConfig) -> dict[str, Any]:
    """Return the table ``rope_parameters``, the inverse of :func:`read_rotary`."""
    names = {scaling: name for name, scaling in _SCALINGS.items()}
    table = {"rope_type": names[config.rotary_scaling], "rope_theta": config.rotary_base}
    if config.rotary_scaling != "none":
        table["factor"] = config.rotary_factor
    if config.rotary_scaling == "llama3":
        table |= {
            "low_freq_factor": config.rotary_low_frequency_factor,
            "high_freq_factor": config.rotary_high_frequency_factor,
            "original_max_position_embeddings": config.rotary_original_positions,
        }
    return table
