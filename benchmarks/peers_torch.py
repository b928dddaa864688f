"""The same training step in PyTorch: `transformers`' Marian and `torch.nn.Transformer`."""

import contextlib
import itertools
import math
import os
from typing import Any

import numpy as np
import torch
from torch import nn

from contenders import Contender
from training_shapes import Shape, draw_batches

LEARNING_RATE = 1e-4


class TorchTrainer:
    """A contender in PyTorch, eager or compiled; see :class:`worker.Trainer`."""

    def __init__(self, contender: Contender, shape: Shape) -> None:
        torch.manual_seed(0)
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        self._device = {"cpu": "cpu", "gpu": "cuda"}[shape.device]
        if shape.device == "gpu":
            if not torch.cuda.is_available():
                raise SystemExit("this shape needs a GPU that PyTorch can use")
            # What JAX does with float32 products on a GPU, too.
            torch.set_float32_matmul_precision("high")
        self._dtype = getattr(torch, contender.precision)
        self._shape = shape
        make_model = {"marian": make_marian, "torch": TorchTransformer}[contender.library]
        self._model = make_model(shape).to(self._device).train()
        self._loss = (
            torch.compile(self._compute_loss) if contender.is_compiled else (self._compute_loss)
        )
        # On two CPU cores and the small shape 3 ms; foreach takes 15, a loop 9.
        self._optimizer = torch.optim.Adam(
            self._model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), eps=1e-9, fused=True
        )
        batches = [
            [torch.from_numpy(array).to(self._device, torch.int64) for array in batch]
            for batch in draw_batches(shape)
        ]
        self._batches = itertools.cycle(batches)
        size = (shape.product_size, shape.product_size)
        self._matrix = torch.ones(size, dtype=self._dtype, device=self._device)

    def run_steps(self, count: int) -> float:
        """Run training steps."""
        for _ in range(count):
            self._optimizer.zero_grad(set_to_none=True)
            loss = self._loss(*next(self._batches))
            loss.backward()
            nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
            self._optimizer.step()
        self._wait()
        return loss.item()

    def run_products(self, count: int) -> None:
        """Multiply two matrices."""
        for _ in range(count):
            torch.mm(self._matrix, self._matrix)
        self._wait()

    def report(self) -> dict[str, Any]:
        """Describe the contender."""
        is_gpu = self._device == "cuda"
        trained = [each for each in self._model.parameters() if each.requires_grad]
        return {
            "num_parameters": sum(each.numel() for each in trained),
            "version": f"torch {torch.__version__}",
            "device_memory_bytes": torch.cuda.max_memory_allocated() if is_gpu else None,
        }

    def _compute_loss(
        self, source: torch.Tensor, target: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        is_narrow = self._dtype != torch.float32
        precision = (
            torch.autocast(self._device, self._dtype) if is_narrow else contextlib.nullcontext()
        )
        with precision:
            logits = self._model(input_ids=source, decoder_input_ids=target)
            if not isinstance(logits, torch.Tensor):
                logits = logits.logits
            return nn.functional.cross_entropy(
                logits.flatten(0, 1),
                labels.flatten(),
                label_smoothing=self._shape.label_smoothing,
            )

    def _wait(self) -> None:
        if self._device == "cuda":
            torch.cuda.synchronize()


def make_marian(shape: Shape) -> nn.Module:
    """Make `transformers`' Marian with random weights; its attention is torch's fused one."""
    from transformers import MarianConfig, MarianMTModel

    config = MarianConfig(
        vocab_size=shape.vocab_size,
        d_model=shape.model_dim,
        encoder_layers=shape.num_layers,
        decoder_layers=shape.num_layers,
        encoder_ffn_dim=shape.feed_forward_dim,
        decoder_ffn_dim=shape.feed_forward_dim,
        encoder_attention_heads=shape.num_heads,
        decoder_attention_heads=shape.num_heads,
        max_position_embeddings=shape.sentence_length,
        activation_function="relu",
        dropout=shape.dropout_rate,
        attention_dropout=0.0,
        activation_dropout=0.0,
        scale_embedding=True,
        use_cache=False,
        pad_token_id=0,
        decoder_start_token_id=1,
        eos_token_id=2,
        forced_eos_token_id=2,
        attn_implementation="sdpa",
    )
    return MarianMTModel(config)


class TorchTransformer(nn.Module):
    """`torch.nn.Transformer` between one table of embeddings and its transpose."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.vocab_size, shape.model_dim)
        nn.init.normal_(self.embedding.weight, std=shape.model_dim**-0.5)
        self.dropout = nn.Dropout(shape.dropout_rate)
        self.transformer = nn.Transformer(
            shape.model_dim,
            shape.num_heads,
            shape.num_layers,
            shape.num_layers,
            shape.feed_forward_dim,
            shape.dropout_rate,
            batch_first=True,
        )
        for module in self.transformer.modules():
            # The others drop no attention weights and no hidden units of the feed-forward network.
            if isinstance(module, nn.MultiheadAttention):
                module.dropout = 0.0
            elif isinstance(module, nn.TransformerEncoderLayer | nn.TransformerDecoderLayer):
                module.dropout.p = 0.0
        positions = tabulate_positions(shape.sentence_length, shape.model_dim)
        self.register_buffer("positions", positions)
        mask = nn.Transformer.generate_square_subsequent_mask(shape.sentence_length)
        self.register_buffer("mask", mask)

    def forward(self, input_ids: torch.Tensor, decoder_input_ids: torch.Tensor) -> torch.Tensor:
        """Return the logits ``[B, T, V]``."""
        states = self.transformer(
            self._embed(input_ids),
            self._embed(decoder_input_ids),
            tgt_mask=self.mask,
            tgt_is_causal=True,
        )
        return nn.functional.linear(states, self.embedding.weight)

    def _embed(self, tokens: torch.Tensor) -> torch.Tensor:
        scale = math.sqrt(self.embedding.embedding_dim)
        return self.dropout(self.embedding(tokens) * scale + self.positions)


def tabulate_positions(num_positions: int, dim: int) -> torch.Tensor:
    """Return sinusoids, all sines before all cosines, float32 ``[num_positions, dim]``."""
    angles = np.arange(num_positions)[:, None] / 10000 ** (np.arange(0, dim, 2) / dim)
    return torch.tensor(np.hstack([np.sin(angles), np.cos(angles)]), dtype=torch.float32)
