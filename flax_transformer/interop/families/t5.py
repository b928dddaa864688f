"""T5 (Raffel et al., 2019, arXiv 1910.10683) and its version 1.1."""

from typing import Any

from flax_transformer.interop.attributes import Attributes
from flax_transformer.interop.family import ACTIVATION_NAMES, THEIR_ACTIVATIONS, Family
from flax_transformer.interop.state_dict import Rule, attention, linear, norm
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.nn.feed_forward import Activation

_MAX_POSITIONS = 512
"""What T5 was trained with, where a file says nothing; relative positions have no end."""


def _config_from(attributes: Attributes, class_name: str) -> TransformerConfig:
    attributes.expect("is_encoder_decoder", True)
    activation, gated = _read_feed_forward(attributes)
    vocab_size = attributes.integer("vocab_size")
    num_layers = attributes.integer("num_layers")
    dropout_rate = attributes.number("dropout_rate", 0.1)
    # In the first version the embedding is the output's table too, and states are scaled for it.
    is_tied = attributes.flag("tie_word_embeddings", True)
    return TransformerConfig(
        source_vocab_size=vocab_size,
        target_vocab_size=vocab_size,
        model_dim=attributes.integer("d_model"),
        num_encoder_layers=num_layers,
        num_decoder_layers=attributes.integer("num_decoder_layers", num_layers),
        num_heads=attributes.integer("num_heads"),
        head_dim=attributes.integer("d_kv"),
        feed_forward_dim=attributes.integer("d_ff"),
        activation=activation,
        gated_feed_forward=gated,
        feed_forward_bias=False,
        scale_attention=False,
        pre_norm=True,
        norm="rms",
        norm_epsilon=attributes.number("layer_norm_epsilon", 1e-6),
        scale_embedding=False,
        scale_output=attributes.flag("scale_decoder_outputs", is_tied),
        share_target_output_embedding=is_tied,
        position_encoding="relative",
        num_relative_buckets=attributes.integer("relative_attention_num_buckets", 32),
        max_relative_distance=attributes.integer("relative_attention_max_distance", 128),
        max_positions=attributes.integer("n_positions", _MAX_POSITIONS),
        dropout_rate=dropout_rate,
        attention_dropout_rate=dropout_rate,
        feed_forward_dropout_rate=dropout_rate,
    )


def _read_feed_forward(attributes: Attributes) -> tuple[Activation, bool]:
    """Read the activation and whether it is of a gate."""
    kinds = {name: (name, False) for name in ACTIVATION_NAMES}
    kinds |= {f"gated-{name}": (name, True) for name in ACTIVATION_NAMES}
    kinds["gated-gelu"] = ("gelu_new", True)
    name, gated = attributes.choose("feed_forward_proj", kinds, "relu")
    activation: Activation = attributes.choose("dense_act_fn", ACTIVATION_NAMES, name)
    return activation, attributes.flag("is_gated_act", gated)


def _config_to(config: TransformerConfig) -> dict[str, Any]:
    name = THEIR_ACTIVATIONS[config.activation]
    return {
        "vocab_size": config.target_vocab_size,
        "d_model": config.model_dim,
        "num_layers": config.num_encoder_layers,
        "num_decoder_layers": config.num_decoder_layers,
        "num_heads": config.num_heads,
        "d_kv": config.head_dim or config.model_dim // config.num_heads,
        "d_ff": config.feed_forward_dim,
        "feed_forward_proj": f"gated-{name}" if config.gated_feed_forward else name,
        "dense_act_fn": name,
        "is_gated_act": config.gated_feed_forward,
        "layer_norm_epsilon": config.norm_epsilon,
        "scale_decoder_outputs": config.scale_output,
        "tie_word_embeddings": config.share_target_output_embedding,
        "relative_attention_num_buckets": config.num_relative_buckets,
        "relative_attention_max_distance": config.max_relative_distance,
        "n_positions": config.max_positions,
        "dropout_rate": config.dropout_rate,
        "is_encoder_decoder": True,
    }


def _rules(config: TransformerConfig) -> list[Rule]:
    rules = [Rule("target_embedding/embedding", "shared.weight")]
    for stack, num_layers in (
        ("encoder", config.num_encoder_layers),
        ("decoder", config.num_decoder_layers),
    ):
        rules += norm(f"{stack}/final_norm", f"{stack}.final_layer_norm", bias=False)
        table = f"{stack}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        rules += [Rule(f"{stack}/relative_bias/embedding", table)]
        for index in range(num_layers):
            rules += _layer_rules(config, stack, index)
    if not config.share_target_output_embedding:
        rules += [Rule("output_embedding/embedding", "lm_head.weight")]
    return rules


def _layer_rules(config: TransformerConfig, stack: str, index: int) -> list[Rule]:
    ours, theirs = f"{stack}/layers_{index}", f"{stack}.block.{index}.layer"
    sublayers = [("self_attention", "SelfAttention")]
    if stack == "decoder":
        sublayers += [("cross_attention", "EncDecAttention")]
    rules: list[Rule] = []
    for place, (sublayer, name) in enumerate(sublayers):
        tensors = [f"{theirs}.{place}.{name}.{letter}" for letter in "qkvo"]
        rules += attention(f"{ours}/{sublayer}", tensors, bias=False)
        rules += norm(
            f"{ours}/{sublayer}_residual/norm", f"{theirs}.{place}.layer_norm", bias=False
        )
    last = f"{theirs}.{len(sublayers)}"
    names = {"hidden": "wi", "output": "wo"}
    if config.gated_feed_forward:
        names = {"gate": "wi_0", "hidden": "wi_1", "output": "wo"}
    for name, tensor in names.items():
        rules += linear(
            f"{ours}/feed_forward/{name}", f"{last}.DenseReluDense.{tensor}", bias=False
        )
    rules += norm(f"{ours}/feed_forward_residual/norm", f"{last}.layer_norm", bias=False)
    return rules


def _aliases(config: TransformerConfig) -> dict[str, str]:
    names = ["encoder.embed_tokens.weight", "decoder.embed_tokens.weight"]
    if config.share_target_output_embedding:
        names.append("lm_head.weight")
    return dict.fromkeys(names, "shared.weight")


T5 = Family(
    model_type="t5",
    classes=("T5ForConditionalGeneration",),
    config_from=_config_from,
    config_to=_config_to,
    class_of=lambda _: "T5ForConditionalGeneration",
    rules=_rules,
    aliases=_aliases,
    untied="lm_head.weight",
    # The first checkpoints have it; nothing ever read it.
    surplus=lambda _: (
        r"decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight",
    ),
)
