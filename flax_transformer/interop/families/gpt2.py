"""GPT-2 (Radford et al., 2019)."""

from typing import Any

from flax_transformer.interop.attributes import Attributes
from flax_transformer.interop.family import THEIR_ACTIVATIONS, Family, read_activation
from flax_transformer.interop.state_dict import Rule, norm
from flax_transformer.models.transformer_config import TransformerConfig


def _config_from(attributes: Attributes, class_name: str) -> TransformerConfig:
    attributes.expect("scale_attn_by_inverse_layer_idx", False)
    attributes.expect("is_encoder_decoder", False)
    vocab_size = attributes.integer("vocab_size")
    model_dim = attributes.integer("n_embd")
    return TransformerConfig(
        architecture="decoder_only",
        source_vocab_size=vocab_size,
        target_vocab_size=vocab_size,
        model_dim=model_dim,
        num_encoder_layers=0,
        num_decoder_layers=attributes.integer("n_layer"),
        num_heads=attributes.integer("n_head"),
        feed_forward_dim=attributes.integer("n_inner", 4 * model_dim),
        activation=read_activation(attributes, "activation_function", "gelu_new"),
        attention_bias=True,
        scale_attention=attributes.flag("scale_attn_weights", True),
        pre_norm=True,
        norm_epsilon=attributes.number("layer_norm_epsilon", 1e-5),
        scale_embedding=False,
        share_target_output_embedding=attributes.flag("tie_word_embeddings", True),
        position_encoding="learned",
        max_positions=attributes.integer("n_positions", 1024),
        dropout_rate=attributes.number("resid_pdrop", 0.1),
        attention_dropout_rate=attributes.number("attn_pdrop", 0.1),
    )


def _config_to(config: TransformerConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.target_vocab_size,
        "n_embd": config.model_dim,
        "n_layer": config.num_decoder_layers,
        "n_head": config.num_heads,
        "n_inner": config.feed_forward_dim,
        "n_positions": config.max_positions,
        "activation_function": THEIR_ACTIVATIONS[config.activation],
        "scale_attn_weights": config.scale_attention,
        "layer_norm_epsilon": config.norm_epsilon,
        "resid_pdrop": config.dropout_rate,
        "embd_pdrop": config.dropout_rate,
        "attn_pdrop": config.attention_dropout_rate,
        "tie_word_embeddings": config.share_target_output_embedding,
    }


def _rules(config: TransformerConfig) -> list[Rule]:
    rules = [
        Rule("target_embedding/embedding", "wte.weight"),
        Rule("target_positions/embedding", "wpe.weight"),
        *norm("decoder/final_norm", "ln_f"),
    ]
    for index in range(config.num_decoder_layers):
        ours, theirs = f"decoder/layers_{index}", f"h.{index}"
        attention = f"{ours}/self_attention"
        for part, name in enumerate(("query", "key", "value")):
            rules += _conv(f"{attention}/{name}", f"{theirs}.attn.c_attn", part=(part, 3))
        rules += _conv(f"{attention}/output", f"{theirs}.attn.c_proj", in_axes=2)
        rules += _conv(f"{ours}/feed_forward/hidden", f"{theirs}.mlp.c_fc")
        rules += _conv(f"{ours}/feed_forward/output", f"{theirs}.mlp.c_proj")
        rules += norm(f"{ours}/self_attention_residual/norm", f"{theirs}.ln_1")
        rules += norm(f"{ours}/feed_forward_residual/norm", f"{theirs}.ln_2")
    if not config.share_target_output_embedding:
        rules += [Rule("output_embedding/embedding", "lm_head.weight")]
    return rules


def _conv(
    path: str, tensor: str, *, in_axes: int = 1, part: tuple[int, int] = (0, 1)
) -> tuple[Rule, Rule]:
    return (
        Rule(f"{path}/kernel", f"{tensor}.weight", "conv", in_axes, part),
        Rule(f"{path}/bias", f"{tensor}.bias", "vector", part=part),
    )


def _aliases(config: TransformerConfig) -> dict[str, str]:
    if not config.share_target_output_embedding:
        return {}
    return {"lm_head.weight": "transformer.wte.weight"}


GPT2 = Family(
    model_type="gpt2",
    classes=("GPT2LMHeadModel", "GPT2Model"),
    config_from=_config_from,
    config_to=_config_to,
    class_of=lambda _: "GPT2LMHeadModel",
    rules=_rules,
    base_prefix="transformer.",
    head_tensors=("lm_head.",),
    aliases=_aliases,
    untied="lm_head.weight",
    # The causal mask, and what it writes where it is not.
    surplus=lambda _: (r"(transformer\.)?h\.\d+\.attn\.(masked_)?bias",),
    harmless=frozenset(
        {
            *("n_ctx", "embd_pdrop", "reorder_and_upcast_attn", "is_decoder"),
            # Of a class with two heads, and of the first GPT.
            *("summary_activation", "summary_proj_to_labels", "summary_type", "summary_use_proj"),
            *("n_special", "predict_special_tokens"),
        }
    ),
)
