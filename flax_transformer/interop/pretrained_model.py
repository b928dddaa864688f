"""A trained model with all that is needed to use it."""

from typing import NamedTuple

from flax_transformer.array_types import Parameters
from flax_transformer.data.tokenizer import TranslationTokenizer
from flax_transformer.interop.generation_defaults import GenerationDefaults
from flax_transformer.models.encoder_decoder import EncoderDecoder
from flax_transformer.models.make_model import Model
from flax_transformer.models.transformer_config import TransformerConfig


class Pretrained(NamedTuple):
    """A trained model, ready for use.

    Attributes:
        model: the module.
        params: its parameters.
        config: of the model.
        tokenizer: of both sides, the same where there is one side; None where none is known.
        generation: the tokens that a search must know, and its constraints.
        labels: names of the classes of a classification head; empty where they have none.
    """

    model: Model
    params: Parameters
    config: TransformerConfig
    tokenizer: TranslationTokenizer | None
    generation: GenerationDefaults = GenerationDefaults()
    labels: tuple[str, ...] = ()


class Translator(NamedTuple):
    """A :class:`Pretrained` that translates text: an encoder–decoder with its tokenizers."""

    model: EncoderDecoder
    params: Parameters
    config: TransformerConfig
    tokenizer: TranslationTokenizer
    generation: GenerationDefaults
