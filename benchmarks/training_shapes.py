"""The models and batches that training steps are timed on, and the work that they take."""

import dataclasses
from collections.abc import Mapping
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

Device: TypeAlias = Literal["cpu", "gpu"]
Remat: TypeAlias = Literal["none", "full", "dots", "dots_no_batch"]

NUM_BATCHES = 4
START_TOKEN = 1
FIRST_WORD = 4
"""Tokens below are for padding, starts and ends; the drawn sentences have none of them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shape:
    """An encoder-decoder and a batch of sentence pairs of equal lengths, without padding.

    Attributes:
        model_dim: D.
        feed_forward_dim: F.
        num_layers: of the encoder, and of the decoder.
        num_heads: attention heads.
        vocab_size: V, of one table for source, target and output.
        num_rows: rows of a batch.
        sentences_per_row: more than one for packed rows; contenders that know no segments get a row
            for each sentence instead.
        sentence_length: tokens of a source, and of a target.
        dropout_rate: of embeddings and of each sub-layer's output.
        label_smoothing: ε.
        device: where to run.
        narrow_states: our bfloat16 keeps the states between products in bfloat16, too.
        steps_per_turn: steps that a contender makes before the next has its turn.
        product_size: rows and columns of the matrices whose product is timed.
        remat: our rematerialisation; the peers have none.
        vocab_chunks: parts of the vocabulary in our loss.
    """

    model_dim: int
    feed_forward_dim: int
    num_layers: int
    num_heads: int
    vocab_size: int
    num_rows: int
    sentences_per_row: int = 1
    sentence_length: int = 32
    dropout_rate: float = 0.1
    label_smoothing: float = 0.1
    device: Device = "cpu"
    narrow_states: bool = False
    steps_per_turn: int = 1
    product_size: int = 2048
    remat: Remat = "none"
    vocab_chunks: int = 1

    @property
    def num_sentences(self) -> int:
        """Sentence pairs of a batch."""
        return self.num_rows * self.sentences_per_row

    @property
    def num_target_tokens(self) -> int:
        """Target tokens of a batch; there are as many source tokens."""
        return self.num_sentences * self.sentence_length


_SMALL = Shape(
    model_dim=256,
    feed_forward_dim=1024,
    num_layers=3,
    num_heads=8,
    vocab_size=8000,
    num_rows=64,
)

SHAPES: Mapping[str, Shape] = {
    "tiny": dataclasses.replace(
        _SMALL, model_dim=32, feed_forward_dim=64, num_layers=1, vocab_size=100, num_rows=4
    ),
    "small": _SMALL,
    "base": Shape(
        model_dim=512,
        feed_forward_dim=2048,
        num_layers=6,
        num_heads=8,
        vocab_size=32_000,
        num_rows=16,
    ),
    "packed": dataclasses.replace(_SMALL, num_rows=8, sentences_per_row=8),
    "big": Shape(
        model_dim=1024,
        feed_forward_dim=4096,
        num_layers=6,
        num_heads=16,
        vocab_size=32_000,
        num_rows=64,
        sentences_per_row=8,
        device="gpu",
        narrow_states=True,
        steps_per_turn=10,
        product_size=8192,
    ),
}
"""``tiny`` is there to try the script; ``big`` is for an accelerator."""


class Sentences(NamedTuple):
    """A batch before it is packed: a sentence pair a row, ``[num_sentences, sentence_length]``.

    Attributes:
        source: what the encoder reads.
        target: what the decoder reads: the labels shifted right, behind a start token.
        labels: what it shall predict.
    """

    source: np.ndarray
    target: np.ndarray
    labels: np.ndarray


def draw_batches(shape: Shape) -> list[Sentences]:
    """Draw the batches that every contender goes through in turn, int32; the same at each call.

    >>> draw_batches(SHAPES["tiny"])[0].labels.shape
    (4, 32)
    """
    generator = np.random.default_rng(0)
    size = (shape.num_sentences, shape.sentence_length)
    batches = []
    for _ in range(NUM_BATCHES):
        source, labels = generator.integers(FIRST_WORD, shape.vocab_size, (2, *size), np.int32)
        target = np.roll(labels, 1, axis=1)
        target[:, 0] = START_TOKEN
        batches.append(Sentences(source, target, labels))
    return batches


def model_flops(shape: Shape) -> int:
    """Count the floating-point operations of a training step, by one formula for all contenders.

    6 for each element of a matrix and each token that it multiplies: a multiplication and an
    addition, in the forward pass and twice in the backward pass. A decoder's layer multiplies
    source tokens, too, by the key and value matrices of its cross-attention, and the output table
    multiplies target tokens. Besides, ``12 T² D`` for each sentence and attention: two products,
    all T² pairs of tokens counted, masked or not. What packing, rematerialisation or padding add is
    not counted, nor is what is no product of matrices.

    >>> model_flops(SHAPES["small"]) / 1e9
    94.62349824
    """
    square = shape.model_dim**2
    feed_forward = 2 * shape.model_dim * shape.feed_forward_dim
    encoder = shape.num_layers * (4 * square + feed_forward)
    decoder = shape.num_layers * (8 * square + feed_forward)
    output = shape.vocab_size * shape.model_dim
    # As many source as target tokens: it does not matter which of them a matrix multiplies.
    products = 6 * (encoder + decoder + output) * shape.num_target_tokens
    attentions = 3 * shape.num_layers * shape.num_sentences
    return products + attentions * 12 * shape.sentence_length**2 * shape.model_dim
