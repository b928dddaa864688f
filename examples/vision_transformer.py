"""A Vision Transformer on scikit-learn's 1,797 handwritten digits of 8 x 8 pixels.

    pip install -e ".[examples]"
    python examples/vision_transformer.py

It shows the encoder layers on what is not text: an image is cut into 16 patches of 2 x 2 pixels,
and each patch is a "token" of four numbers (Dosovitskiy et al., 2021, arXiv 2010.11929). The class
is read from the mean of the final states. The images are split at random into 1,197 for training,
300 for dev and 300 for test; the parameters that are best on dev are scored once on test.

Result: test accuracy of at least 97.7 % (seeds 0, 1, 2, each with a split of its own). Time: 25 s
on two cores.
"""

import functools
import sys
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import tyro
from sklearn.datasets import load_digits

from flax_transformer.array_types import Array, Float, Int, Key, Parameters
from flax_transformer.nn.blocks import EncoderLayer
from flax_transformer.nn.layer_config import LayerConfig
from flax_transformer.nn.linear import Linear
from flax_transformer.nn.normalization import LayerNorm
from flax_transformer.nn.positions import SinusoidalPositions

GOAL = 0.96
BATCH_SIZE = 64
EVAL_EVERY = 100
LAYER = LayerConfig(
    model_dim=48,
    num_heads=4,
    head_dim=12,
    feed_forward_dim=96,
    activation="gelu",
    pre_norm=True,
    dropout_rate=0.1,
)


class VisionTransformer(nn.Module):
    """Patches, encoder layers, and the logits of the ten digits."""

    num_layers: int = 3

    @nn.compact
    def __call__(
        self, images: Float[Array | np.ndarray, "B 8 8"], *, deterministic: bool
    ) -> Float[Array, "B 10"]:
        """Classify images."""
        patches = (
            jnp.asarray(images).reshape(-1, 4, 2, 4, 2).transpose(0, 1, 3, 2, 4).reshape(-1, 16, 4)
        )
        states = Linear((LAYER.model_dim,), use_bias=True, name="patch_embedding")(patches)
        states = states + SinusoidalPositions(16, LAYER.model_dim)(jnp.arange(16))
        for i in range(self.num_layers):
            states = EncoderLayer(LAYER, name=f"layers_{i}")(states, deterministic=deterministic)
        states = LayerNorm(name="final_norm")(states)
        return Linear((10,), use_bias=True, name="classifier")(states.mean(axis=1))


class Split(NamedTuple):
    """Some of the images, with pixels from -1 to 1, and what they show."""

    images: Float[np.ndarray, "B 8 8"]
    labels: Int[np.ndarray, " B"]


def load_splits(seed: int) -> tuple[Split, Split, Split]:
    """Split the digits at random for training, dev and test."""
    digits = load_digits()
    order = np.random.default_rng(seed).permutation(len(digits.target))
    images = (digits.images[order] / 8.0 - 1.0).astype(np.float32)
    labels = digits.target[order]
    edges = (slice(None, -600), slice(-600, -300), slice(-300, None))
    train, dev, test = (Split(images[edge], labels[edge]) for edge in edges)
    return train, dev, test


def draw_batch(split: Split, rng: np.random.Generator) -> Split:
    """Draw images, many of them moved by a pixel, which makes more of the few that there are."""
    rows = rng.integers(len(split.labels), size=BATCH_SIZE)
    padded = np.pad(split.images[rows], ((0, 0), (1, 1), (1, 1)), constant_values=-1.0)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (8, 8), axis=(1, 2))
    down, right = rng.choice((0, 1, 1, 1, 1, 1, 2), size=(2, BATCH_SIZE))
    return Split(windows[np.arange(BATCH_SIZE), down, right], split.labels[rows])


class Figures(NamedTuple):
    """What a run reached."""

    first_loss: float
    last_loss: float
    dev_accuracy: float
    test_accuracy: float


def main(num_steps: int = 1500, seed: int = 0) -> Figures:
    """Train for ``num_steps`` and score the best parameters on the test images."""
    train, dev, test = load_splits(seed)
    model = VisionTransformer()
    optimizer = optax.adamw(optax.cosine_decay_schedule(2e-3, num_steps), weight_decay=0.05)
    init_key, dropout_key = jax.random.split(jax.random.key(seed))

    def loss_of(params: Parameters, batch: Split, key: Key[Array, ""]) -> Float[Array, ""]:
        logits = model.apply(
            {"params": params}, batch.images, deterministic=False, rngs={"dropout": key}
        )
        return optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels).mean()

    @jax.jit
    def step(
        params: Parameters, state: optax.OptState, batch: Split, key: Key[Array, ""]
    ) -> tuple[Parameters, optax.OptState, Float[Array, ""]]:
        loss, gradients = jax.value_and_grad(loss_of)(params, batch, key)
        updates, state = optimizer.update(gradients, state, params)
        return optax.apply_updates(params, updates), state, loss

    @jax.jit
    def accuracy(params: Parameters, split: Split) -> Float[Array, ""]:
        logits = model.apply({"params": params}, split.images, deterministic=True)
        return (logits.argmax(axis=-1) == split.labels).mean()

    init = jax.jit(functools.partial(model.init, deterministic=True))
    params = init(init_key, train.images[:1])["params"]
    state = optimizer.init(params)
    rng = np.random.default_rng(seed)
    losses, best = [], (0.0, params)
    for i in range(1, num_steps + 1):
        key = jax.random.fold_in(dropout_key, i)
        params, state, loss = step(params, state, draw_batch(train, rng), key)
        losses.append(loss)
        if i % EVAL_EVERY == 0 or i == num_steps:
            best = max(best, (float(accuracy(params, dev)), params), key=lambda kept: kept[0])
    dev_accuracy, params = best
    return Figures(float(losses[0]), float(losses[-1]), dev_accuracy, float(accuracy(params, test)))


if __name__ == "__main__":
    figures = tyro.cli(main)
    print(f"test accuracy {figures.test_accuracy:.1%} (dev {figures.dev_accuracy:.1%})")
    if figures.test_accuracy < GOAL:
        sys.exit(f"the test accuracy must be at least {GOAL:.0%}.")
