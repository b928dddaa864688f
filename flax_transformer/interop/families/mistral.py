"""Mistral (Jiang et al., 2023, arXiv 2310.06825) without its sliding window: Llama's shape."""

import dataclasses

from flax_transformer.errors import InputError
from flax_transformer.interop.attributes import Attributes
from flax_transformer.interop.families.llama import LLAMA, read_decoder
from flax_transformer.models.transformer_config import TransformerConfig


def _config_from(attributes: Attributes, class_name: str) -> TransformerConfig:
    attributes.expect("mlp_bias", False)
    attributes.expect("attention_bias", False)
    config = read_decoder(attributes, num_key_value_heads=8, max_positions=4096 * 32)
    # Here null is not the default, which is a window.
    if not attributes.is_null("sliding_window"):
        window = attributes.integer("sliding_window", 4096)
        if window < config.max_positions:
            raise InputError(
                f"{attributes.source}: sliding_window must be null or at least "
                f"max_position_embeddings = {config.max_positions}, got {window}."
            )
    return config


MISTRAL = dataclasses.replace(
    LLAMA,
    model_type="mistral",
    classes=("MistralForCausalLM",),
    config_from=_config_from,
    class_of=lambda _: "MistralForCausalLM",
    harmless=frozenset(),
)
"""What is read as one is written as Llama, which computes the same."""
