"""Random Marian models in the forms that the contenders read, and sentences for them."""

import random
from pathlib import Path
from typing import NamedTuple


class ModelShape(NamedTuple):
    """Sizes of a model."""

    model_dim: int
    feed_forward_dim: int
    num_layers: int
    vocab_size: int


MODELS = {
    "tiny": ModelShape(32, 64, 1, 100),  # to try the script
    "small": ModelShape(256, 1024, 3, 8_000),
    "base": ModelShape(512, 2048, 6, 32_000),
}

EOS_ID = 0
SHORTEST, LONGEST = 8, 60
"""Tokens of a source."""


def write_models(directory: Path, shape: ModelShape) -> None:
    """Write the model for transformers and this project, and that for CTranslate2."""
    import torch
    from ctranslate2.converters.transformers import _MODEL_LOADERS
    from transformers import MarianConfig, MarianMTModel

    torch.manual_seed(0)
    pad_id = shape.vocab_size - 1
    model = MarianMTModel(
        MarianConfig(
            vocab_size=shape.vocab_size,
            d_model=shape.model_dim,
            encoder_layers=shape.num_layers,
            decoder_layers=shape.num_layers,
            encoder_ffn_dim=shape.feed_forward_dim,
            decoder_ffn_dim=shape.feed_forward_dim,
            encoder_attention_heads=8,
            decoder_attention_heads=8,
            activation_function="relu",
            max_position_embeddings=512,
            scale_embedding=True,
            eos_token_id=EOS_ID,
            pad_token_id=pad_id,
            decoder_start_token_id=pad_id,
            forced_eos_token_id=None,
            num_beams=1,
            init_std=shape.model_dim**-0.5,
        )
    ).eval()
    with torch.no_grad():
        # Their logits are 0, too little to be chosen: no output ends before the greatest length.
        model.model.shared.weight[[EOS_ID, pad_id]] = 0.0
    model.save_pretrained(directory / "marian")
    loader = _MODEL_LOADERS["MarianConfig"]
    spec = loader.get_model_spec(model)
    tokens = [str(index) for index in range(pad_id)]
    spec.config.eos_token = spec.config.decoder_start_token = str(EOS_ID)
    spec.config.unk_token = "1"
    loader.set_vocabulary(spec, tokens)
    spec.validate()
    spec.optimize()
    (directory / "ctranslate2").mkdir()
    spec.save(str(directory / "ctranslate2"))


def make_sources(shape: ModelShape, count: int) -> list[list[int]]:
    """Return sentences of 8 to 60 tokens, the end token among them."""
    rng = random.Random(0)
    return [
        [rng.randrange(2, shape.vocab_size - 1) for _ in range(length - 1)] + [EOS_ID]
        for length in (rng.randint(SHORTEST, LONGEST) for _ in range(count))
    ]
