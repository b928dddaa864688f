"""The model that a config describes."""

from typing import TypeAlias

from flax_transformer.models.decoder_only import DecoderOnly
from flax_transformer.models.encoder_decoder import EncoderDecoder
from flax_transformer.models.encoder_only import EncoderOnly
from flax_transformer.models.transformer_config import TransformerConfig

Model: TypeAlias = EncoderDecoder | EncoderOnly | DecoderOnly


def make_model(config: TransformerConfig) -> Model:
    """Make the module of the config's architecture.

    >>> type(make_model(TransformerConfig())).__name__
    'EncoderDecoder'
    """
    match config.architecture:
        case "encoder_decoder":
            return EncoderDecoder(config)
        case "encoder_only":
            return EncoderOnly(config)
        case "decoder_only":
            return DecoderOnly(config)
