"""Marian (Junczys-Dowmunt et al., 2018), the shape of the OPUS-MT translation models."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from flax_transformer.errors import InputError
from flax_transformer.interop.attributes import Attributes
from flax_transformer.interop.families.bart import (
    layer_rules,
    read_stacks,
    shared_aliases,
    write_stacks,
)
from flax_transformer.interop.family import Family
from flax_transformer.interop.state_dict import Rule
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.nn.positions import sinusoidal_table

_MAX_TABLE_SIZE = 1 << 26
"""Numbers in a table of sinusoids, which is computed, and so takes memory before a file is read."""


def _config_from(attributes: Attributes, class_name: str) -> TransformerConfig:
    attributes.expect("normalize_embedding", False)
    attributes.expect("static_position_embeddings", True)
    vocab_size = attributes.integer("vocab_size")
    is_shared = attributes.flag("share_encoder_decoder_embeddings", True)
    if is_shared:
        attributes.expect("tie_word_embeddings", True)
    fields = read_stacks(attributes)
    num_rows = _MAX_TABLE_SIZE // max(1, fields["model_dim"])
    if fields["max_positions"] > num_rows:
        raise InputError(
            f"{attributes.source}: max_position_embeddings must be at most {num_rows} for d_model "
            f"= {fields['model_dim']}, got {fields['max_positions']}."
        )
    return TransformerConfig(
        **fields,
        output_bias=True,
        source_vocab_size=vocab_size,
        target_vocab_size=attributes.integer("decoder_vocab_size", vocab_size),
        share_source_target_embedding=is_shared,
        share_target_output_embedding=attributes.flag("tie_word_embeddings", True),
        position_encoding="sinusoidal",
        sinusoid_layout="halves",
    )


def _config_to(config: TransformerConfig) -> dict[str, Any]:
    return {
        **write_stacks(config),
        "decoder_vocab_size": config.target_vocab_size,
        "share_encoder_decoder_embeddings": config.share_source_target_embedding,
        "static_position_embeddings": True,
    }


def _rules(config: TransformerConfig) -> list[Rule]:
    if config.share_source_target_embedding:
        return [Rule("target_embedding/embedding", "shared.weight"), *layer_rules(config)]
    return [
        Rule("source_embedding/embedding", "encoder.embed_tokens.weight"),
        Rule("target_embedding/embedding", "decoder.embed_tokens.weight"),
        *layer_rules(config),
    ]


def _aliases(config: TransformerConfig) -> dict[str, str]:
    if config.share_source_target_embedding:
        return shared_aliases(config)
    if config.share_target_output_embedding:
        return {"lm_head.weight": "model.decoder.embed_tokens.weight"}
    return {}


def _sinusoids(config: TransformerConfig) -> dict[str, Callable[[], np.ndarray]]:
    make_table = functools.partial(
        sinusoidal_table, config.max_positions, config.model_dim, layout="halves"
    )
    names = [f"model.{stack}.embed_positions.weight" for stack in ("encoder", "decoder")]
    return dict.fromkeys(names, make_table)


MARIAN = Family(
    model_type="marian",
    classes=("MarianMTModel",),
    config_from=_config_from,
    config_to=_config_to,
    class_of=lambda _: "MarianMTModel",
    rules=_rules,
    base_prefix="model.",
    head_tensors=("lm_head.", "final_logits_bias"),
    aliases=_aliases,
    computed=_sinusoids,
    # Of the table of sinusoids, rows that are not used.
    harmless=frozenset({"num_hidden_layers", "extra_pos_embeddings"}),
)
