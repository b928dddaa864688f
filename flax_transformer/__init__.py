"""Transformers in JAX and Flax: train them, decode with them, reuse their parts.

Importing this package loads nothing else; each name is loaded when it is first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flax_transformer.decoding.beam_search import beam_search
    from flax_transformer.decoding.beam_state import BeamInputs
    from flax_transformer.decoding.beam_strategy import BeamSearch
    from flax_transformer.decoding.end_tokens import EndTokens
    from flax_transformer.decoding.forced_token import ForcedToken
    from flax_transformer.decoding.generate import generate
    from flax_transformer.decoding.greedy import Greedy, greedy_search
    from flax_transformer.decoding.hypotheses import Hypotheses
    from flax_transformer.decoding.minimum_bayes_risk import minimum_bayes_risk
    from flax_transformer.decoding.model_combinations import Contrast, Ensemble
    from flax_transformer.decoding.prepare import prepare_to_decode
    from flax_transformer.decoding.repetition import NoRepeatNgram, RepetitionPenalty
    from flax_transformer.decoding.row_options import RowOptions
    from flax_transformer.decoding.sampling import Sampling, make_row_keys, sample
    from flax_transformer.decoding.score import score
    from flax_transformer.decoding.step_functions import (
        combine_reorders,
        make_contrastive_step,
        make_ensemble_step,
    )
    from flax_transformer.decoding.stream import stream
    from flax_transformer.decoding.token_constraints import BadWords, ForcedPrefix, SuppressedTokens
    from flax_transformer.errors import InputError
    from flax_transformer.evaluation.metrics import sentence_chrf
    from flax_transformer.evaluation.translate import translate
    from flax_transformer.evaluation.translation import Request
    from flax_transformer.interop.model_directory import save_model
    from flax_transformer.interop.pretrained import load_pretrained, save_pretrained
    from flax_transformer.interop.pretrained_model import Pretrained
    from flax_transformer.models.decoder_only import DecoderOnly
    from flax_transformer.models.encoder_decoder import EncoderDecoder
    from flax_transformer.models.encoder_only import EncoderOnly
    from flax_transformer.models.make_model import make_model
    from flax_transformer.models.presets import (
        bart_base,
        bert_base,
        bert_large,
        distilbert_base,
        gpt2,
        gpt2_medium,
        gpt3_175b,
        marian_base,
        t5_base,
        t5_small,
        transformer_base,
        transformer_big,
        transformer_tiny,
    )
    from flax_transformer.models.transformer_config import TransformerConfig
    from flax_transformer.nn.block_sparse_pattern import BlockSparseConfig

__all__ = [
    "BadWords",
    "BeamInputs",
    "BeamSearch",
    "BlockSparseConfig",
    "Contrast",
    "DecoderOnly",
    "EncoderDecoder",
    "EncoderOnly",
    "EndTokens",
    "Ensemble",
    "ForcedPrefix",
    "ForcedToken",
    "Greedy",
    "Hypotheses",
    "InputError",
    "NoRepeatNgram",
    "Pretrained",
    "RepetitionPenalty",
    "Request",
    "RowOptions",
    "Sampling",
    "SuppressedTokens",
    "TransformerConfig",
    "bart_base",
    "beam_search",
    "bert_base",
    "bert_large",
    "combine_reorders",
    "distilbert_base",
    "generate",
    "gpt2",
    "gpt2_medium",
    "gpt3_175b",
    "greedy_search",
    "load_pretrained",
    "make_contrastive_step",
    "make_ensemble_step",
    "make_model",
    "make_row_keys",
    "marian_base",
    "minimum_bayes_risk",
    "prepare_to_decode",
    "sample",
    "save_model",
    "save_pretrained",
    "score",
    "sentence_chrf",
    "stream",
    "t5_base",
    "t5_small",
    "transformer_base",
    "transformer_big",
    "transformer_tiny",
    "translate",
]

_HOMES = {
    "decoding.beam_search": ("beam_search",),
    "decoding.beam_state": ("BeamInputs",),
    "decoding.beam_strategy": ("BeamSearch",),
    "decoding.end_tokens": ("EndTokens",),
    "decoding.forced_token": ("ForcedToken",),
    "decoding.generate": ("generate",),
    "decoding.greedy": (
        "Greedy",
        "greedy_search",
    ),
    "decoding.hypotheses": ("Hypotheses",),
    "decoding.minimum_bayes_risk": ("minimum_bayes_risk",),
    "decoding.model_combinations": (
        "Contrast",
        "Ensemble",
    ),
    "decoding.prepare": ("prepare_to_decode",),
    "decoding.repetition": (
        "NoRepeatNgram",
        "RepetitionPenalty",
    ),
    "decoding.row_options": ("RowOptions",),
    "decoding.sampling": (
        "Sampling",
        "make_row_keys",
        "sample",
    ),
    "decoding.score": ("score",),
    "decoding.step_functions": (
        "combine_reorders",
        "make_contrastive_step",
        "make_ensemble_step",
    ),
    "decoding.stream": ("stream",),
    "decoding.token_constraints": (
        "BadWords",
        "ForcedPrefix",
        "SuppressedTokens",
    ),
    "errors": ("InputError",),
    "evaluation.metrics": ("sentence_chrf",),
    "evaluation.translate": ("translate",),
    "evaluation.translation": ("Request",),
    "interop.model_directory": ("save_model",),
    "interop.pretrained": (
        "load_pretrained",
        "save_pretrained",
    ),
    "interop.pretrained_model": ("Pretrained",),
    "models.decoder_only": ("DecoderOnly",),
    "models.encoder_decoder": ("EncoderDecoder",),
    "models.encoder_only": ("EncoderOnly",),
    "models.make_model": ("make_model",),
    "models.presets": (
        "bart_base",
        "bert_base",
        "bert_large",
        "distilbert_base",
        "gpt2",
        "gpt2_medium",
        "gpt3_175b",
        "marian_base",
        "t5_base",
        "t5_small",
        "transformer_base",
        "transformer_big",
        "transformer_tiny",
    ),
    "models.transformer_config": ("TransformerConfig",),
    "nn.block_sparse_pattern": ("BlockSparseConfig",),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    """Import the module of a public name; see PEP 562."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    """Name what there is, loaded or not."""
    return [*globals(), *__all__]
