"""Small Marian models, trained on a toy task until their hypotheses vary and compete."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from parity.peers import Peer, torch, transformers

from flax_transformer.interop.pretrained import load_pretrained

VOCAB_SIZE = 150
EOS, PAD = 0, VOCAB_SIZE - 1
LETTERS = np.arange(5, PAD, 6)

_BATCH_SIZE = 48
_IGNORED = -100
"""A label that the library's loss leaves out."""


class Sources(NamedTuple):
    """Padded sources, each with its end token."""

    tokens: np.ndarray
    mask: np.ndarray


def make_half_trained(directory: Path, *, seed: int, num_steps: int) -> Peer:
    """Train a model of the library for so many steps, save it, and load what it has saved.

    The training computes in float64: rounding differs from machine to machine, and in float32 the
    differences would grow to other models.
    """
    torch.manual_seed(seed)
    config = transformers.MarianConfig(
        vocab_size=VOCAB_SIZE,
        d_model=24,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_ffn_dim=32,
        max_position_embeddings=32,
        pad_token_id=PAD,
        decoder_start_token_id=PAD,
        eos_token_id=EOS,
        forced_eos_token_id=EOS,
        scale_embedding=True,
        activation_function="swish",
        dropout=0.0,
        init_std=0.15,
    )
    model = transformers.MarianMTModel(config)
    model.final_logits_bias.normal_(std=0.3)
    _train(model.double(), np.random.default_rng(seed), num_steps)
    model = model.float().eval()
    model.generation_config.bad_words_ids = [[PAD]]  # as all public models of Marian have it
    model.save_pretrained(directory)
    return Peer(model, directory, load_pretrained(directory))


def make_sources(seed: int, num_rows: int) -> Sources:
    """Draw sources of the toy task."""
    tokens = _pad(_draw_sources(np.random.default_rng(seed), num_rows), PAD)
    return Sources(tokens, tokens != PAD)


def _train(model: torch.nn.Module, rng: np.random.Generator, num_steps: int) -> None:
    optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
    for _ in range(num_steps):
        sources = _draw_sources(rng, _BATCH_SIZE)
        tokens = torch.tensor(_pad(sources, PAD))
        labels = torch.tensor(_pad([_draw_target(rng, source) for source in sources], _IGNORED))
        loss = model(input_ids=tokens, attention_mask=tokens != PAD, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def _draw_sources(rng: np.random.Generator, num_rows: int) -> list[np.ndarray]:
    """Draw sentences of 2 to 6 letters, of three different ones at most, and the end token."""
    return [
        np.append(rng.choice(rng.choice(LETTERS, 3), rng.integers(2, 7)), EOS)
        for _ in range(num_rows)
    ]


def _draw_target(rng: np.random.Generator, source: np.ndarray) -> np.ndarray:
    """Translate: forwards or backwards, each letter not at all, once or twice, by chance."""
    letters = source[:-1] if rng.random() < 0.6 else source[-2::-1]
    return np.append(np.repeat(letters, rng.choice(3, letters.size, p=[0.15, 0.6, 0.25])), EOS)


def _pad(rows: list[np.ndarray], filling: int) -> np.ndarray:
    padded = np.full((len(rows), max(map(len, rows))), filling)
    for place, row in enumerate(rows):
        padded[place, : row.size] = row
    return padded
