"""Find two words that have changed places, with our encoder layers in a Flax NNX model.

    python examples/nnx_bridge.py

`nnx.bridge.ToNNX` makes an NNX module of a Linen one. Ours is then a part of the model like
`nnx.Embed` and `nnx.Linear`: `nnx.Optimizer` updates its parameters, and its dropout draws from
the model's `nnx.Rngs`.

The model reads a Portuguese sentence two neighbouring words of which have been swapped, such as
"meu avô dançar vai no hotel", and says which two. The sentences are those that come with the
project; each of the test contains a combination of words that none for training contains.

Result: found in at least 97.4 % of the test sentences (seeds 0, 1, 2); by chance it would be 20 %.
Time: 20 s on two cores.
"""

import sys
from collections.abc import Iterable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import optax
import tyro
from flax import nnx

from flax_transformer.array_types import Array, Float, Int
from flax_transformer.data.sentences.corpus import generate_corpus, words_of
from flax_transformer.nn.blocks import EncoderLayer
from flax_transformer.nn.layer_config import LayerConfig
from flax_transformer.nn.masks import make_padding_mask
from flax_transformer.nn.positions import sinusoidal_table

GOAL = 0.95
LENGTH = 16
BATCH_SIZE = 64
PADDING = 0
LAYER = LayerConfig(
    model_dim=64, num_heads=4, head_dim=16, feed_forward_dim=128, pre_norm=True, dropout_rate=0.1
)


class SwapFinder(nnx.Module):
    """An NNX model whose layers are Linen modules."""

    def __init__(self, num_words: int, num_layers: int, *, rngs: nnx.Rngs) -> None:
        dim = LAYER.model_dim
        self.embedding = nnx.Embed(num_words, dim, rngs=rngs)
        self.layers = nnx.List(
            nnx.bridge.ToNNX(EncoderLayer(LAYER), rngs=rngs) for _ in range(num_layers)
        )
        self.norm = nnx.LayerNorm(dim, rngs=rngs)
        self.score = nnx.Linear(dim, 1, rngs=rngs)
        # The parameters of a Linen module are made when it first sees its input.
        nnx.bridge.lazy_init(self, np.ones((1, LENGTH), np.int32), deterministic=True)

    def __call__(
        self, words: Int[Array | np.ndarray, "B 16"], *, deterministic: bool
    ) -> Float[Array, "B 16"]:
        """Return the logit, for each word, that it and the next one have changed places."""
        words = jnp.asarray(words)
        is_word = words != PADDING
        table = sinusoidal_table(LENGTH, LAYER.model_dim, layout="interleaved")
        states = self.embedding(words) + table
        for layer in self.layers:
            states = layer(states, make_padding_mask(is_word), deterministic=deterministic)
        return jnp.where(is_word, self.score(self.norm(states))[..., 0], -jnp.inf)


class Swapped(NamedTuple):
    """Sentences in which a word and the next one have changed places, and where."""

    words: Int[np.ndarray, "B 16"]
    first: Int[np.ndarray, " B"]


def swap(sentences: Int[np.ndarray, "B 16"], rng: np.random.Generator) -> Swapped:
    """Swap two neighbouring words of each sentence."""
    lengths = (sentences != PADDING).sum(axis=1)
    first = rng.integers(lengths - 1)
    words, rows = sentences.copy(), np.arange(len(sentences))
    words[rows, first], words[rows, first + 1] = words[rows, first + 1], words[rows, first]
    return Swapped(words, first)


def encode(texts: Iterable[str], numbers: dict[str, int]) -> Int[np.ndarray, "B 16"]:
    """Number the words of each text; words without a number get the next one."""
    rows = [[numbers.setdefault(word, len(numbers) + 1) for word in words_of(t)] for t in texts]
    return np.array([row + [PADDING] * (LENGTH - len(row)) for row in rows], np.int32)


class Figures(NamedTuple):
    """What a run reached; accuracies are shares of the test sentences."""

    first_loss: float
    last_loss: float
    chance: float
    accuracy: float


@nnx.jit
def step(model: SwapFinder, optimizer: nnx.Optimizer, batch: Swapped) -> Float[Array, ""]:
    """Update ``model`` and ``optimizer`` in place and return the loss."""

    def loss_of(model: SwapFinder) -> Float[Array, ""]:
        logits = model(batch.words, deterministic=False)
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch.first).mean()

    loss, gradients = nnx.value_and_grad(loss_of)(model)
    optimizer.update(model, gradients)
    return loss


@nnx.jit
def find(model: SwapFinder, words: Int[Array, "B 16"]) -> Int[Array, " B"]:
    """Return the place of the first of the two swapped words."""
    return model(words, deterministic=True).argmax(axis=-1)


def main(num_steps: int = 1000, seed: int = 0) -> Figures:
    """Train for ``num_steps`` and look for the swapped words of the test sentences."""
    corpus = generate_corpus()
    numbers: dict[str, int] = {}
    train, test = (
        encode((pair.portuguese for pair in corpus[split]), numbers) for split in ("train", "test")
    )
    model = SwapFinder(len(numbers) + 1, num_layers=2, rngs=nnx.Rngs(seed))
    schedule = optax.cosine_decay_schedule(3e-3, num_steps)
    optimizer = nnx.Optimizer(model, optax.adam(schedule), wrt=nnx.Param)
    rng = np.random.default_rng(seed)
    losses = []
    for _ in range(num_steps):
        batch = swap(train[rng.integers(len(train), size=BATCH_SIZE)], rng)
        losses.append(step(model, optimizer, batch))

    words, first = swap(test, rng)
    found = find(model, words)
    chance = (1.0 / ((words != PADDING).sum(axis=1) - 1)).mean()
    return Figures(
        float(losses[0]), float(losses[-1]), float(chance), float((found == first).mean())
    )


if __name__ == "__main__":
    figures = tyro.cli(main)
    print(f"found in {figures.accuracy:.1%} of the test sentences (chance: {figures.chance:.1%})")
    if figures.accuracy < GOAL:
        sys.exit(f"the two words must be found in at least {GOAL:.0%} of the sentences.")
