"""Llama (Touvron et al., 2023, arXiv 2302.13971), the shape of most decoder-only models."""

from typing import Any

from flax_transformer.interop.attributes import Attributes
from flax_transformer.interop.family import THEIR_ACTIVATIONS, Family, read_activation
from flax_transformer.interop.rotary_attributes import read_rotary, write_rotary
from flax_transformer.interop.state_dict import Rule, attention, linear, norm
from flax_transformer.models.transformer_config import TransformerConfig


def read_decoder(
    attributes: Attributes, *, num_key_value_heads: int, max_positions: int
) -> TransformerConfig:
    """Read the attributes that Llama and Mistral name alike, but for two defaults."""
    attributes.expect("is_encoder_decoder", False)
    attributes.expect("is_decoder", False, True)
    vocab_size = attributes.integer("vocab_size")
    return TransformerConfig(
        architecture="decoder_only",
        source_vocab_size=vocab_size,
        target_vocab_size=vocab_size,
        model_dim=attributes.integer("hidden_size"),
        num_encoder_layers=0,
        num_decoder_layers=attributes.integer("num_hidden_layers"),
        num_heads=attributes.integer("num_attention_heads"),
        num_key_value_heads=attributes.integer("num_key_value_heads", num_key_value_heads),
        head_dim=attributes.integer("head_dim") if attributes.has("head_dim") else None,
        feed_forward_dim=attributes.integer("intermediate_size"),
        activation=read_activation(attributes, "hidden_act", "silu"),
        gated_feed_forward=True,
        feed_forward_bias=attributes.flag("mlp_bias", False),
        attention_bias=attributes.flag("attention_bias", False),
        pre_norm=True,
        norm="rms",
        norm_epsilon=attributes.number("rms_norm_eps", 1e-6),
        scale_embedding=False,
        share_target_output_embedding=attributes.flag("tie_word_embeddings", False),
        position_encoding="rotary",
        **read_rotary(attributes),
        max_positions=attributes.integer("max_position_embeddings", max_positions),
        dropout_rate=0.0,
        attention_dropout_rate=attributes.number("attention_dropout", 0.0),
    )


def _config_from(attributes: Attributes, class_name: str) -> TransformerConfig:
    attributes.expect("pretraining_tp", 1)
    attributes.expect("rope_interleaved", False)
    num_heads = attributes.integer("num_attention_heads")
    return read_decoder(attributes, num_key_value_heads=num_heads, max_positions=2048)


def _config_to(config: TransformerConfig) -> dict[str, Any]:
    head_dim = config.head_dim or config.model_dim // config.num_heads
    return {
        "vocab_size": config.target_vocab_size,
        "hidden_size": config.model_dim,
        "num_hidden_layers": config.num_decoder_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_key_value_heads or config.num_heads,
        "head_dim": head_dim,
        "intermediate_size": config.feed_forward_dim,
        "hidden_act": THEIR_ACTIVATIONS[config.activation],
        "mlp_bias": config.feed_forward_bias,
        "attention_bias": config.attention_bias,
        "rms_norm_eps": config.norm_epsilon,
        "rope_parameters": write_rotary(config),
        "max_position_embeddings": config.max_positions,
        "attention_dropout": config.attention_dropout_rate,
        "tie_word_embeddings": config.share_target_output_embedding,
    }


def _rules(config: TransformerConfig) -> list[Rule]:
    rules = [
        Rule("target_embedding/embedding", "embed_tokens.weight"),
        *norm("decoder/final_norm", "norm", bias=False),
    ]
    for index in range(config.num_decoder_layers):
        ours, theirs = f"decoder/layers_{index}", f"layers.{index}"
        tensors = [f"{theirs}.self_attn.{name}_proj" for name in "qkvo"]
        rules += attention(f"{ours}/self_attention", tensors, bias=config.attention_bias)
        rules += norm(
            f"{ours}/self_attention_residual/norm", f"{theirs}.input_layernorm", bias=False
        )
        for name, tensor in (("hidden", "up"), ("gate", "gate"), ("output", "down")):
            rules += linear(
                f"{ours}/feed_forward/{name}",
                f"{theirs}.mlp.{tensor}_proj",
                bias=config.feed_forward_bias,
            )
        rules += norm(
            f"{ours}/feed_forward_residual/norm", f"{theirs}.post_attention_layernorm", bias=False
        )
    if not config.share_target_output_embedding:
        rules += [Rule("output_embedding/embedding", "lm_head.weight")]
    return rules


def _aliases(config: TransformerConfig) -> dict[str, str]:
    if not config.share_target_output_embedding:
        return {}
    return {"lm_head.weight": "model.embed_tokens.weight"}


LLAMA = Family(
    model_type="llama",
    classes=("LlamaForCausalLM",),
    config_from=_config_from,
    config_to=_config_to,
    class_of=lambda _: "LlamaForCausalLM",
    rules=_rules,
    base_prefix="model.",
    head_tensors=("lm_head.",),
    aliases=_aliases,
    untied="lm_head.weight",
    harmless=frozenset({"is_llama_config"}),
    surplus=lambda _: (r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq",),
)
