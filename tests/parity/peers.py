"""Tiny models of the transformers library with random parameters, a case for each option."""

import dataclasses
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from flax_transformer.interop.pretrained import Pretrained

HOW_TO_INSTALL = 'needs torch and transformers: pip install -e ".[parity]"'

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    torch = pytest.importorskip("torch", reason=HOW_TO_INSTALL)
    transformers = pytest.importorskip("transformers", reason=HOW_TO_INSTALL)

torch.set_num_threads(1)
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

VOCAB_SIZE = 37


class Peer(NamedTuple):
    """A model of the library, the directory it is saved in, and what we make of that."""

    model: Any
    directory: Path
    pretrained: Pretrained


@dataclasses.dataclass(frozen=True)
class Case:
    """A class of the library and the attributes of its config."""

    class_name: str
    attributes: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    change: Callable[[Any], None] | None = None

    def make(self) -> Any:
        torch.manual_seed(0)
        config_class = getattr(transformers, self.class_name).config_class
        base = BASES[config_class.model_type]
        config = config_class(**{**base, **self.attributes})
        model = getattr(transformers, self.class_name)(config).eval()
        if self.change is not None:
            self.change(model)
        randomize(model)
        return model


BASES: dict[str, dict[str, Any]] = {
    "bert": {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 15,
        "num_hidden_layers": 1,
        "num_attention_heads": 3,
        "intermediate_size": 17,
        "max_position_embeddings": 19,
        "type_vocab_size": 3,
    },
    "distilbert": {
        "vocab_size": VOCAB_SIZE,
        "dim": 15,
        "n_layers": 1,
        "n_heads": 3,
        "hidden_dim": 17,
        "max_position_embeddings": 19,
    },
    "gpt2": {
        "vocab_size": VOCAB_SIZE,
        "n_embd": 15,
        "n_layer": 2,
        "n_head": 3,
        "n_positions": 29,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
    },
    "t5": {
        "vocab_size": VOCAB_SIZE,
        "d_model": 14,
        "d_kv": 5,
        "d_ff": 17,
        "num_layers": 1,
        "num_decoder_layers": 2,
        "num_heads": 3,
        "relative_attention_num_buckets": 8,
        "relative_attention_max_distance": 12,
        "decoder_start_token_id": 0,
    },
    "bart": {
        "vocab_size": VOCAB_SIZE,
        "d_model": 15,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_attention_heads": 3,
        "decoder_attention_heads": 3,
        "encoder_ffn_dim": 17,
        "decoder_ffn_dim": 17,
        "max_position_embeddings": 29,
    },
    "llama": {
        "vocab_size": VOCAB_SIZE,
        "hidden_size": 24,
        "intermediate_size": 17,
        "num_hidden_layers": 2,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "max_position_embeddings": 29,
        "pad_token_id": 0,
    },
}
BASES["roberta"] = {**BASES["bert"], "type_vocab_size": 1}
BASES["mistral"] = BASES["llama"]
BASES["marian"] = {
    **BASES["bart"],
    "d_model": 18,
    "decoder_layers": 1,
    "pad_token_id": VOCAB_SIZE - 1,
    "decoder_start_token_id": VOCAB_SIZE - 1,
    "eos_token_id": 0,
    "forced_eos_token_id": 0,
    "scale_embedding": True,
    "activation_function": "swish",
}


def _untie(model: Any) -> None:
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())


CASES: dict[str, Case] = {
    **{
        f"{prefix}{suffix}": Case(f"{prefix}{suffix}")
        for prefix in ("Bert", "DistilBert", "Roberta")
        for suffix in ("ForMaskedLM", "ForSequenceClassification")
    },
    "bert of two layers": Case("BertModel", {"num_hidden_layers": 2}),
    "distilbert of two layers": Case("DistilBertModel", {"n_layers": 2}),
    "roberta of two layers": Case("RobertaModel", {"num_hidden_layers": 2}),
    "bert tokens, 5 labels, gelu_new": Case(
        "BertForTokenClassification", {"num_labels": 5, "hidden_act": "gelu_new"}
    ),
    "distilbert tokens": Case("DistilBertForTokenClassification"),
    "roberta tokens": Case("RobertaForTokenClassification", {"type_vocab_size": 2}),
    "gpt2": Case("GPT2LMHeadModel"),
    "gpt2 untied, wide": Case(
        "GPT2LMHeadModel",
        {
            "tie_word_embeddings": False,
            "n_inner": 23,
            "scale_attn_weights": False,
            "n_layer": 1,
        },
    ),
    "t5 tied, relu": Case("T5ForConditionalGeneration"),
    "t5 untied, gated": Case(
        "T5ForConditionalGeneration",
        {
            "tie_word_embeddings": False,
            "feed_forward_proj": "gated-gelu",
            "num_decoder_layers": 1,
        },
        _untie,
    ),
    "bart": Case("BartForConditionalGeneration"),
    "bart scaled, relu": Case(
        "BartForConditionalGeneration",
        {"scale_embedding": True, "activation_function": "relu", "decoder_layers": 1},
    ),
    "marian": Case("MarianMTModel"),
    "marian of two vocabularies": Case(
        "MarianMTModel",
        {
            "share_encoder_decoder_embeddings": False,
            "tie_word_embeddings": False,
            "decoder_vocab_size": 31,
            "pad_token_id": 30,
            "decoder_start_token_id": 30,
        },
    ),
    "llama of grouped heads": Case("LlamaForCausalLM"),
    "llama tied, with biases": Case(
        "LlamaForCausalLM",
        {
            "num_hidden_layers": 1,
            "tie_word_embeddings": True,
            "attention_bias": True,
            "mlp_bias": True,
            "num_key_value_heads": 6,
            "head_dim": 6,
            "rope_parameters": {"rope_type": "default", "rope_theta": 100.0},
        },
    ),
    # Of six pairs of a head one keeps its frequency, two lie between, three are divided.
    "llama stretched as 3.1": Case(
        "LlamaForCausalLM",
        {
            "num_hidden_layers": 1,
            "head_dim": 12,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 50.0,
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 2.0,
                "original_max_position_embeddings": 24,
            },
        },
    ),
    "llama stretched evenly": Case(
        "LlamaForCausalLM",
        {
            "num_hidden_layers": 1,
            "rope_parameters": {"rope_type": "linear", "rope_theta": 50.0, "factor": 3.0},
        },
    ),
}


def randomize(model: Any) -> None:
    """Draw every parameter, and the bias of logits, so that none is without effect."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("embed_positions.weight") and model.config.model_type == "marian":
                continue  # sinusoids, which are never saved
            parameter.normal_(std=0.25)
            if "norm" in name.lower() and name.endswith("weight"):
                parameter.add_(1.0)
            if "ln_" in name and name.endswith("weight"):
                parameter.add_(1.0)
        for name, buffer in model.named_buffers():
            if name == "final_logits_bias":
                buffer.normal_(std=0.5)


class Inputs(NamedTuple):
    """Padded rows for both sides; of a model with one side the target is not used."""

    source: np.ndarray
    source_mask: np.ndarray
    token_types: np.ndarray
    target: np.ndarray
    target_mask: np.ndarray


def make_inputs(config: Any) -> Inputs:
    rng = np.random.default_rng(1)
    pad_id = config.pad_token_id or 0

    def rows(lengths: tuple[int, ...], vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
        shape = (len(lengths), max(lengths))
        mask = np.arange(shape[1]) < np.array(lengths)[:, None]
        # The padding of no family is among them: its embedding has no gradient there.
        return np.where(mask, rng.integers(3, vocab_size - 1, shape), pad_id), mask

    target_vocab_size = getattr(config, "decoder_vocab_size", None) or config.vocab_size
    smallest = min(config.vocab_size, target_vocab_size)
    source, source_mask = rows((7, 4, 6), smallest)
    target, target_mask = rows((3, 5, 4), smallest)
    token_types = rng.integers(0, getattr(config, "type_vocab_size", 0) or 1, source.shape)
    return Inputs(source, source_mask, token_types, target, target_mask)
