"""RoBERTa (Liu et al., 2019, arXiv 1907.11692): BERT's shape, positions after the padding's."""

from typing import Any

from flax_transformer.errors import InputError
from flax_transformer.interop.attributes import Attributes
from flax_transformer.interop.families.bert import (
    class_fields,
    class_of,
    encoder_rules,
    read_encoder,
    write_encoder,
)
from flax_transformer.interop.family import Family
from flax_transformer.interop.state_dict import Rule, linear, norm
from flax_transformer.models.transformer_config import TransformerConfig


def _config_from(attributes: Attributes, class_name: str) -> TransformerConfig:
    # The row of a position is counted from the padding's id, whose own row is for padding.
    offset = attributes.integer("pad_token_id", 1) + 1
    num_rows = attributes.integer("max_position_embeddings", 512)
    if num_rows <= offset:
        raise InputError(
            f"{attributes.source}: max_position_embeddings must be over {offset}, got {num_rows}."
        )
    if class_name == "RobertaForMaskedLM":
        # The head of the library's class has GELU whatever the attribute says.
        attributes.expect("hidden_act", "gelu", "gelu_python")
    has_pooler = class_name == "RobertaForSequenceClassification" or (
        class_name == "RobertaModel" and attributes.flag("add_pooling_layer", True)
    )
    return TransformerConfig(
        **read_encoder(attributes),
        **class_fields(attributes, class_name),
        max_positions=num_rows - offset,
        position_offset=offset,
        pooler="tanh" if has_pooler else "none",
    )


def _config_to(config: TransformerConfig) -> dict[str, Any]:
    return {
        **write_encoder(config),
        "max_position_embeddings": config.max_positions + config.position_offset,
        "pad_token_id": config.position_offset - 1,
    }


def _rules(config: TransformerConfig) -> list[Rule]:
    rules = list(encoder_rules(config))
    match config.head:
        case "none":
            if config.pooler != "none":
                rules += linear("pooler", "pooler.dense", bias=True)
        case "masked_lm":
            rules += linear("masked_lm_head/transform", "lm_head.dense", bias=True)
            rules += norm("masked_lm_head/norm", "lm_head.layer_norm")
            rules += [Rule("output_bias", "lm_head.bias")]
        case "sequence_classification":
            rules += linear("pooler", "classifier.dense", bias=True)
            rules += linear("classifier", "classifier.out_proj", bias=True)
        case "token_classification":
            rules += linear("classifier", "classifier", bias=True)
    return rules


def _surplus(config: TransformerConfig) -> tuple[str, ...]:
    """Return the names of buffers, of the pooler and of the head of the pre-training."""
    names = (
        r"(roberta\.)?embeddings\.(position|token_type)_ids",
        r"(roberta\.)?pooler\.dense\.(weight|bias)",
    )
    return names if config.head == "masked_lm" else (*names, r"lm_head\..*")


ROBERTA = Family(
    model_type="roberta",
    classes=(
        "RobertaModel",
        "RobertaForMaskedLM",
        "RobertaForSequenceClassification",
        "RobertaForTokenClassification",
    ),
    config_from=_config_from,
    config_to=_config_to,
    class_of=lambda config: class_of("Roberta", config),
    rules=_rules,
    base_prefix="roberta.",
    base_class="RobertaModel",
    head_tensors=("lm_head.", "classifier."),
    aliases=lambda _: {
        "lm_head.decoder.weight": "roberta.embeddings.word_embeddings.weight",
        "lm_head.decoder.bias": "lm_head.bias",
    },
    surplus=_surplus,
)
