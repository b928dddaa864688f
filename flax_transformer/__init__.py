"""Transformers in JAX and Flax: train them, decode with them, reuse their parts.

Importing this package loads JAX and Flax alone; what reads files is imported where it is used.
"""

from typing import TYPE_CHECKING, Any

from flax_transformer.decoding.beam_search import BeamSearch, beam_search
from flax_transformer.decoding.generate import generate
from flax_transformer.decoding.greedy import Greedy, greedy_search
from flax_transformer.decoding.hypotheses import Hypotheses
from flax_transformer.decoding.sampling import Sampling, sample
from flax_transformer.decoding.score import score
from flax_transformer.errors import InputError
from flax_transformer.models.encoder_decoder import EncoderDecoder
from flax_transformer.models.presets import transformer_base, transformer_big, transformer_tiny
from flax_transformer.models.transformer_config import TransformerConfig

if TYPE_CHECKING:
    from flax_transformer.evaluation.translate import translate
    from flax_transformer.interop.pretrained import Pretrained, load_pretrained, save_model

__all__ = [
    "BeamSearch",
    "EncoderDecoder",
    "Greedy",
    "Hypotheses",
    "InputError",
    "Pretrained",
    "Sampling",
    "TransformerConfig",
    "beam_search",
    "generate",
    "greedy_search",
    "load_pretrained",
    "sample",
    "save_model",
    "score",
    "transformer_base",
    "transformer_big",
    "transformer_tiny",
    "translate",
]

_LAZY = {
    "Pretrained": "flax_transformer.interop.pretrained",
    "load_pretrained": "flax_transformer.interop.pretrained",
    "save_model": "flax_transformer.interop.pretrained",
    "translate": "flax_transformer.evaluation.translate",
}


def __getattr__(name: str) -> Any:
    """Import what needs SentencePiece or safetensors when it is first asked for."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)
