"""Transformers in JAX and Flax: train them, decode with them, reuse their parts.

Importing this package loads nothing else; each name is loaded when it is first asked for.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flax_transformer.decoding.beam_search import beam_search
    from flax_transformer.decoding.beam_strategy import BeamSearch
    from flax_transformer.decoding.generate import generate
    from flax_transformer.decoding.greedy import Greedy, greedy_search
    from flax_transformer.decoding.hypotheses import Hypotheses
    from flax_transformer.decoding.sampling import Sampling, sample
    from flax_transformer.decoding.score import score
    from flax_transformer.errors import InputError
    from flax_transformer.evaluation.translate import translate
    from flax_transformer.interop.pretrained import Pretrained, load_pretrained, save_model
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

__all__ = [
    "BeamSearch",
    "DecoderOnly",
    "EncoderDecoder",
    "EncoderOnly",
    "Greedy",
    "Hypotheses",
    "InputError",
    "Pretrained",
    "Sampling",
    "TransformerConfig",
    "bart_base",
    "beam_search",
    "bert_base",
    "bert_large",
    "distilbert_base",
    "generate",
    "gpt2",
    "gpt2_medium",
    "gpt3_175b",
    "greedy_search",
    "load_pretrained",
    "make_model",
    "marian_base",
    "sample",
    "save_model",
    "score",
    "t5_base",
    "t5_small",
    "transformer_base",
    "transformer_big",
    "transformer_tiny",
    "translate",
]

_HOMES = {
    "decoding.beam_search": ("beam_search",),
    "decoding.beam_strategy": ("BeamSearch",),
    "decoding.generate": ("generate",),
    "decoding.greedy": (
        "Greedy",
        "greedy_search",
    ),
    "decoding.hypotheses": ("Hypotheses",),
    "decoding.sampling": (
        "Sampling",
        "sample",
    ),
    "decoding.score": ("score",),
    "errors": ("InputError",),
    "evaluation.translate": ("translate",),
    "interop.pretrained": (
        "Pretrained",
        "load_pretrained",
        "save_model",
    ),
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
