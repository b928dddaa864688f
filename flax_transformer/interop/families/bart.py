"""BART (Lewis et al., 2019, arXiv 1910.13461)."""

from typing import Any

from flax_transformer.interop.attributes import Attributes
from flax_transformer.interop.family import THEIR_ACTIVATIONS, Family, read_activation
from flax_transformer.interop.state_dict import Rule, attention, linear, norm
from flax_transformer.models.transformer_config import TransformerConfig

_NORM_EPSILON = 1e-5
"""Of the library's class, which has no attribute for it."""

_BASE_CLASS = "BartModel"
"""The class without a bias of the logits; the output's table is the embedding there, too."""

_POSITION_OFFSET = 2
"""Rows of the table of positions before the first one's, which are not used."""


def read_stacks(attributes: Attributes) -> dict[str, Any]:
    """Read the fields that BART and Marian name alike."""
    attributes.expect("is_encoder_decoder", True)
    attributes.expect("normalize_before", False)
    attributes.expect("add_final_layer_norm", False)
    attributes.expect("add_bias_logits", False)
    num_heads = attributes.integer("encoder_attention_heads")
    feed_forward_dim = attributes.integer("encoder_ffn_dim")
    attributes.expect("decoder_attention_heads", num_heads)
    attributes.expect("decoder_ffn_dim", feed_forward_dim)
    num_layers = attributes.integer("encoder_layers")
    return {
        "model_dim": attributes.integer("d_model"),
        "num_encoder_layers": num_layers,
        "num_decoder_layers": attributes.integer("decoder_layers"),
        "num_heads": num_heads,
        "feed_forward_dim": feed_forward_dim,
        "activation": read_activation(attributes, "activation_function", "gelu"),
        "attention_bias": True,
        "norm_epsilon": _NORM_EPSILON,
        "scale_embedding": attributes.flag("scale_embedding", False),
        "max_positions": attributes.integer("max_position_embeddings", 1024),
        "dropout_rate": attributes.number("dropout", 0.1),
        "attention_dropout_rate": attributes.number("attention_dropout", 0.0),
        "feed_forward_dropout_rate": attributes.number("activation_dropout", 0.0),
    }


def write_stacks(config: TransformerConfig) -> dict[str, Any]:
    """Write the attributes that BART and Marian name alike."""
    return {
        "vocab_size": config.source_vocab_size,
        "d_model": config.model_dim,
        "encoder_layers": config.num_encoder_layers,
        "decoder_layers": config.num_decoder_layers,
        "encoder_attention_heads": config.num_heads,
        "decoder_attention_heads": config.num_heads,
        "encoder_ffn_dim": config.feed_forward_dim,
        "decoder_ffn_dim": config.feed_forward_dim,
        "activation_function": THEIR_ACTIVATIONS[config.activation],
        "scale_embedding": config.scale_embedding,
        "tie_word_embeddings": config.share_target_output_embedding,
        "max_position_embeddings": config.max_positions,
        "dropout": config.dropout_rate,
        "attention_dropout": config.attention_dropout_rate,
        "activation_dropout": config.feed_forward_dropout_rate,
        "is_encoder_decoder": True,
    }


def layer_rules(config: TransformerConfig) -> list[Rule]:
    """Return the rules of the layers, which Marian names alike."""
    rules: list[Rule] = []
    for stack, num_layers in (
        ("encoder", config.num_encoder_layers),
        ("decoder", config.num_decoder_layers),
    ):
        for index in range(num_layers):
            ours, theirs = f"{stack}/layers_{index}", f"{stack}.layers.{index}"
            sublayers = {"self_attention": "self_attn"}
            if stack == "decoder":
                sublayers["cross_attention"] = "encoder_attn"
            for sublayer, name in sublayers.items():
                letters = ("q", "k", "v", "out")
                tensors = [f"{theirs}.{name}.{letter}_proj" for letter in letters]
                rules += attention(f"{ours}/{sublayer}", tensors, bias=True)
                rules += norm(f"{ours}/{sublayer}_residual/norm", f"{theirs}.{name}_layer_norm")
            rules += linear(f"{ours}/feed_forward/hidden", f"{theirs}.fc1", bias=True)
            rules += linear(f"{ours}/feed_forward/output", f"{theirs}.fc2", bias=True)
            rules += norm(f"{ours}/feed_forward_residual/norm", f"{theirs}.final_layer_norm")
    if not config.share_target_output_embedding:
        rules += [Rule("output_embedding/embedding", "lm_head.weight")]
    if config.output_bias:
        rules += [Rule("output_bias", "final_logits_bias", "row")]
    return rules


def shared_aliases(_: TransformerConfig) -> dict[str, str]:
    """Return the names under which the one shared table of embeddings may be stored again."""
    stacks = "model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight"
    return dict.fromkeys([*stacks, "lm_head.weight"], "model.shared.weight")


def _config_from(attributes: Attributes, class_name: str) -> TransformerConfig:
    attributes.expect("normalize_embedding", True)
    attributes.expect("tie_word_embeddings", True)
    attributes.expect("static_position_embeddings", False)
    attributes.expect("extra_pos_embeddings", _POSITION_OFFSET)
    vocab_size = attributes.integer("vocab_size")
    return TransformerConfig(
        **read_stacks(attributes),
        source_vocab_size=vocab_size,
        target_vocab_size=vocab_size,
        output_bias=class_name != _BASE_CLASS,
        embedding_norm=True,
        position_encoding="learned",
        position_offset=_POSITION_OFFSET,
    )


def _config_to(config: TransformerConfig) -> dict[str, Any]:
    # Converters read these two, of which the library itself knows nothing any more.
    return {**write_stacks(config), "normalize_before": False, "normalize_embedding": True}


def _rules(config: TransformerConfig) -> list[Rule]:
    rules = [Rule("target_embedding/embedding", "shared.weight"), *layer_rules(config)]
    for stack, side in (("encoder", "source"), ("decoder", "target")):
        table = f"{stack}.embed_positions.weight"
        rules += [Rule(f"{side}_positions/embedding", table)]
        rules += norm(f"{side}_embedding_norm", f"{stack}.layernorm_embedding")
    return rules


BART = Family(
    model_type="bart",
    classes=("BartForConditionalGeneration", _BASE_CLASS),
    config_from=_config_from,
    config_to=_config_to,
    class_of=lambda config: "BartForConditionalGeneration" if config.output_bias else _BASE_CLASS,
    rules=_rules,
    base_prefix="model.",
    base_class=_BASE_CLASS,
    head_tensors=("lm_head.", "final_logits_bias"),
    aliases=shared_aliases,
    # The last three are of the making of smaller models from larger ones.
    harmless=frozenset(
        {
            "num_hidden_layers",
            *("replacing_rate", "student_encoder_layers", "student_decoder_layers"),
        }
    ),
)
