"""BERT (Devlin et al., 2018, arXiv 1810.04805)."""

from collections.abc import Iterator
from typing import Any

from flax_transformer.errors import InputError
from flax_transformer.interop.attributes import Attributes
from flax_transformer.interop.family import THEIR_ACTIVATIONS, Family, read_activation
from flax_transformer.interop.state_dict import Rule, attention, linear, norm
from flax_transformer.models.transformer_config import TransformerConfig


def read_encoder(attributes: Attributes) -> dict[str, Any]:
    """Read the fields that BERT and RoBERTa name alike."""
    attributes.expect("position_embedding_type", "absolute")
    attributes.expect("is_encoder_decoder", False)
    attributes.expect("tie_word_embeddings", True)
    vocab_size = attributes.integer("vocab_size")
    num_token_types = attributes.integer("type_vocab_size", 2)
    if num_token_types < 1:
        raise InputError(
            f"{attributes.source}: type_vocab_size must be at least 1, got {num_token_types}."
        )
    return {
        "architecture": "encoder_only",
        "source_vocab_size": vocab_size,
        "target_vocab_size": vocab_size,
        "model_dim": attributes.integer("hidden_size"),
        "num_encoder_layers": attributes.integer("num_hidden_layers"),
        "num_decoder_layers": 0,
        "num_heads": attributes.integer("num_attention_heads"),
        "feed_forward_dim": attributes.integer("intermediate_size"),
        "activation": read_activation(attributes, "hidden_act", "gelu"),
        "attention_bias": True,
        "norm_epsilon": attributes.number("layer_norm_eps", 1e-12),
        "embedding_norm": True,
        "scale_embedding": False,
        "position_encoding": "learned",
        "num_token_types": num_token_types,
        "dropout_rate": attributes.number("hidden_dropout_prob", 0.1),
        "attention_dropout_rate": attributes.number("attention_probs_dropout_prob", 0.1),
    }


def write_encoder(config: TransformerConfig) -> dict[str, Any]:
    """Write the attributes that BERT and RoBERTa name alike."""
    return {
        "vocab_size": config.source_vocab_size,
        "hidden_size": config.model_dim,
        "num_hidden_layers": config.num_encoder_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.feed_forward_dim,
        "hidden_act": THEIR_ACTIVATIONS[config.activation],
        "layer_norm_eps": config.norm_epsilon,
        "type_vocab_size": config.num_token_types,
        "hidden_dropout_prob": config.dropout_rate,
        "attention_probs_dropout_prob": config.attention_dropout_rate,
        "tie_word_embeddings": True,
    }


def encoder_rules(config: TransformerConfig) -> Iterator[Rule]:
    """Yield the rules of the embeddings and layers, which RoBERTa names alike."""
    for path, tensor in (
        ("source_embedding", "word_embeddings"),
        ("source_positions", "position_embeddings"),
        ("token_type_embedding", "token_type_embeddings"),
    ):
        yield Rule(f"{path}/embedding", f"embeddings.{tensor}.weight")
    yield from norm("source_embedding_norm", "embeddings.LayerNorm")
    for index in range(config.num_encoder_layers):
        ours, theirs = f"encoder/layers_{index}", f"encoder.layer.{index}"
        names = ("self.query", "self.key", "self.value", "output.dense")
        tensors = [f"{theirs}.attention.{name}" for name in names]
        yield from attention(f"{ours}/self_attention", tensors, bias=True)
        yield from norm(
            f"{ours}/self_attention_residual/norm", f"{theirs}.attention.output.LayerNorm"
        )
        yield from linear(f"{ours}/feed_forward/hidden", f"{theirs}.intermediate.dense", bias=True)
        yield from linear(f"{ours}/feed_forward/output", f"{theirs}.output.dense", bias=True)
        yield from norm(f"{ours}/feed_forward_residual/norm", f"{theirs}.output.LayerNorm")


def class_fields(attributes: Attributes, class_name: str) -> dict[str, Any]:
    """Return the fields of the head that a class of this kind has, by the end of its name."""
    if class_name.endswith("ForMaskedLM"):
        return {"head": "masked_lm", "output_bias": True}
    if class_name.endswith("ForSequenceClassification"):
        return {"head": "sequence_classification", "num_labels": attributes.num_labels()}
    if class_name.endswith("ForTokenClassification"):
        return {"head": "token_classification", "num_labels": attributes.num_labels()}
    return {}


def class_of(prefix: str, config: TransformerConfig) -> str:
    """Return the name of the class that has the config's head."""
    suffixes = {
        "none": "Model",
        "masked_lm": "ForMaskedLM",
        "sequence_classification": "ForSequenceClassification",
        "token_classification": "ForTokenClassification",
    }
    return f"{prefix}{suffixes[config.head]}"


def _config_from(attributes: Attributes, class_name: str) -> TransformerConfig:
    fields = read_encoder(attributes) | class_fields(attributes, class_name)
    has_pooler = class_name == "BertForSequenceClassification" or (
        class_name == "BertModel" and attributes.flag("add_pooling_layer", True)
    )
    return TransformerConfig(
        **fields,
        max_positions=attributes.integer("max_position_embeddings", 512),
        pooler="tanh" if has_pooler else "none",
    )


def _config_to(config: TransformerConfig) -> dict[str, Any]:
    positions = {"max_position_embeddings": config.max_positions}
    return write_encoder(config) | positions


def _rules(config: TransformerConfig) -> list[Rule]:
    rules = list(encoder_rules(config))
    if config.pooler != "none":
        rules += linear("pooler", "pooler.dense", bias=True)
    if config.head == "masked_lm":
        rules += linear("masked_lm_head/transform", f"{_HEAD}.transform.dense", bias=True)
        rules += norm("masked_lm_head/norm", f"{_HEAD}.transform.LayerNorm")
        rules += [Rule("output_bias", f"{_HEAD}.bias")]
    elif config.head != "none":
        rules += linear("classifier", "classifier", bias=True)
    return rules


def _surplus(config: TransformerConfig) -> tuple[str, ...]:
    """Return the names of buffers, of the pooler and of the heads of the pre-training."""
    names = (
        r"(bert\.)?embeddings\.(position|token_type)_ids",
        r"cls\.seq_relationship\.(weight|bias)",
        r"(bert\.)?pooler\.dense\.(weight|bias)",
    )
    return names if config.head == "masked_lm" else (*names, r"cls\.predictions\..*")


_HEAD = "cls.predictions"

BERT = Family(
    model_type="bert",
    classes=(
        "BertModel",
        "BertForMaskedLM",
        "BertForSequenceClassification",
        "BertForTokenClassification",
    ),
    config_from=_config_from,
    config_to=_config_to,
    class_of=lambda config: class_of("Bert", config),
    rules=_rules,
    base_prefix="bert.",
    base_class="BertModel",
    head_tensors=("cls.", "classifier."),
    aliases=lambda _: {
        f"{_HEAD}.decoder.weight": "bert.embeddings.word_embeddings.weight",
        f"{_HEAD}.decoder.bias": f"{_HEAD}.bias",
    },
    surplus=_surplus,
    # Left by earlier versions in the files of some models; nothing reads them any more.
    harmless=frozenset(
        {
            *("pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers"),
            *("pooler_size_per_head", "pooler_type", "directionality"),
        }
    ),
)
