"""DistilBERT (Sanh et al., 2019, arXiv 1910.01108): BERT without token types, half as deep."""

from typing import Any

from flax_transformer.interop.attributes import Attributes
from flax_transformer.interop.families.bert import class_fields, class_of
from flax_transformer.interop.family import THEIR_ACTIVATIONS, Family, read_activation
from flax_transformer.interop.state_dict import Rule, attention, linear, norm
from flax_transformer.models.transformer_config import TransformerConfig

_NORM_EPSILON = 1e-12
"""Of the library's class, which has no attribute for it."""


def _config_from(attributes: Attributes, class_name: str) -> TransformerConfig:
    # Such tables are stored like learned ones, and can be trained like them, too.
    attributes.flag("sinusoidal_pos_embds", False)
    attributes.expect("tie_weights_", True)
    attributes.expect("tie_word_embeddings", True)
    attributes.expect("is_encoder_decoder", False)
    vocab_size = attributes.integer("vocab_size")
    dropout_rate = attributes.number("dropout", 0.1)
    return TransformerConfig(
        architecture="encoder_only",
        source_vocab_size=vocab_size,
        target_vocab_size=vocab_size,
        model_dim=attributes.integer("dim"),
        num_encoder_layers=attributes.integer("n_layers"),
        num_decoder_layers=0,
        num_heads=attributes.integer("n_heads"),
        feed_forward_dim=attributes.integer("hidden_dim"),
        activation=read_activation(attributes, "activation", "gelu"),
        attention_bias=True,
        norm_epsilon=_NORM_EPSILON,
        embedding_norm=True,
        scale_embedding=False,
        position_encoding="learned",
        max_positions=attributes.integer("max_position_embeddings", 512),
        dropout_rate=dropout_rate,
        attention_dropout_rate=attributes.number("attention_dropout", 0.1),
        pooler="relu" if class_name == "DistilBertForSequenceClassification" else "none",
        **class_fields(attributes, class_name),
    )


def _config_to(config: TransformerConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.source_vocab_size,
        "dim": config.model_dim,
        "n_layers": config.num_encoder_layers,
        "n_heads": config.num_heads,
        "hidden_dim": config.feed_forward_dim,
        "activation": THEIR_ACTIVATIONS[config.activation],
        "max_position_embeddings": config.max_positions,
        "dropout": config.dropout_rate,
        "attention_dropout": config.attention_dropout_rate,
        "sinusoidal_pos_embds": False,
        "tie_word_embeddings": True,
    }


def _rules(config: TransformerConfig) -> list[Rule]:
    rules = [
        Rule("source_embedding/embedding", "embeddings.word_embeddings.weight"),
        Rule("source_positions/embedding", "embeddings.position_embeddings.weight"),
        *norm("source_embedding_norm", "embeddings.LayerNorm"),
    ]
    for index in range(config.num_encoder_layers):
        ours, theirs = f"encoder/layers_{index}", f"transformer.layer.{index}"
        tensors = [f"{theirs}.attention.{name}_lin" for name in ("q", "k", "v", "out")]
        rules += attention(f"{ours}/self_attention", tensors, bias=True)
        rules += norm(f"{ours}/self_attention_residual/norm", f"{theirs}.sa_layer_norm")
        rules += linear(f"{ours}/feed_forward/hidden", f"{theirs}.ffn.lin1", bias=True)
        rules += linear(f"{ours}/feed_forward/output", f"{theirs}.ffn.lin2", bias=True)
        rules += norm(f"{ours}/feed_forward_residual/norm", f"{theirs}.output_layer_norm")
    if config.pooler != "none":
        rules += linear("pooler", "pre_classifier", bias=True)
    if config.head == "masked_lm":
        rules += linear("masked_lm_head/transform", "vocab_transform", bias=True)
        rules += norm("masked_lm_head/norm", "vocab_layer_norm")
        rules += [Rule("output_bias", "vocab_projector.bias")]
    elif config.head != "none":
        rules += linear("classifier", "classifier", bias=True)
    return rules


def _surplus(config: TransformerConfig) -> tuple[str, ...]:
    """Return the names of buffers, and of the head of the pre-training."""
    names = (r"(distilbert\.)?embeddings\.position_ids",)
    if config.head == "masked_lm":
        return names
    return (*names, r"vocab_(transform|layer_norm|projector)\..*")


DISTILBERT = Family(
    model_type="distilbert",
    classes=(
        "DistilBertModel",
        "DistilBertForMaskedLM",
        "DistilBertForSequenceClassification",
        "DistilBertForTokenClassification",
    ),
    config_from=_config_from,
    config_to=_config_to,
    class_of=lambda config: class_of("DistilBert", config),
    rules=_rules,
    base_prefix="distilbert.",
    base_class="DistilBertModel",
    head_tensors=("pre_classifier.", "classifier.", "vocab_"),
    aliases=lambda _: {"vocab_projector.weight": "distilbert.embeddings.word_embeddings.weight"},
    surplus=_surplus,
)
