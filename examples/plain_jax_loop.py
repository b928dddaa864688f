"""Sort numbers with our blocks in plain JAX: no Flax training state, only functions and a dict.

    python examples/plain_jax_loop.py

A Linen module is used here as two pure functions: `init` makes its parameters, `apply` computes
with them. The model is a function that calls five modules; its parameters are one dict of theirs,
which `jax.grad` and Optax take as it is.

The encoder layers read up to 10 numbers; padding is masked out. Positions are added though the
order means nothing: without them, equal numbers would have equal states, and attention, which
averages, could not count them. Then one query for each place of the sorted list attends to what
the layers found: the k-th number is read by an attention whose query is the encoding of k.

Result: at least 99.6 % of new lists sorted without a fault (seeds 0, 1, 2). Time: 25 s, two cores.
"""

import sys
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
import tyro

from flax_transformer.array_types import Array, Float, Int, Key, Parameters
from flax_transformer.nn.attention import MultiHeadAttention
from flax_transformer.nn.blocks import EncoderLayer
from flax_transformer.nn.embedding import Embedding, OutputProjection, score_tokens
from flax_transformer.nn.layer_config import LayerConfig
from flax_transformer.nn.masks import make_padding_mask
from flax_transformer.nn.normalization import LayerNorm
from flax_transformer.nn.positions import sinusoidal_table

GOAL = 0.98
DIM, LENGTH, NUM_VALUES, NUM_LAYERS = 64, 10, 30, 2
PADDING = 0  # numbers are 1 to NUM_VALUES

EMBEDDING = Embedding(NUM_VALUES + 1, DIM)
LAYER = EncoderLayer(
    LayerConfig(model_dim=DIM, num_heads=4, head_dim=16, feed_forward_dim=128, pre_norm=True)
)
NORM = LayerNorm()
READER = MultiHeadAttention(num_heads=4, head_dim=16, model_dim=DIM)
POSITIONS = sinusoidal_table(LENGTH, DIM, layout="interleaved")[None]

Numbers: TypeAlias = Int[Array, "B 10"]


def init(key: Key[Array, ""]) -> Parameters:
    """Make the parameters: a dict of each module's own."""
    embedding_key, reader_key, *layer_keys = jax.random.split(key, 2 + NUM_LAYERS)
    states = jnp.zeros((1, LENGTH, DIM))

    def init_layer(key: Key[Array, ""]) -> Parameters:
        return LAYER.init(key, states, deterministic=True)["params"]

    return {
        "embedding": EMBEDDING.init(embedding_key, jnp.zeros((1, LENGTH), int))["params"],
        "layers": [init_layer(key) for key in layer_keys],
        "norm": NORM.init(reader_key, states)["params"],
        "reader": READER.init(reader_key, states, states, deterministic=True)["params"],
    }


def score(params: Parameters, numbers: Numbers) -> Float[Array, "B 10 V"]:
    """Return the logits of the number at each place of the sorted list."""
    mask = make_padding_mask(numbers != PADDING)
    states = EMBEDDING.apply({"params": params["embedding"]}, numbers) + POSITIONS
    for layer in params["layers"]:
        states = LAYER.apply({"params": layer}, states, mask, deterministic=True)
    states = NORM.apply({"params": params["norm"]}, states)
    queries = jnp.broadcast_to(POSITIONS, states.shape)
    read = READER.apply({"params": params["reader"]}, queries, states, mask, deterministic=True)
    return score_tokens(read, OutputProjection(params["embedding"]["embedding"]))


def draw(key: Key[Array, ""], batch_size: int) -> tuple[Numbers, Numbers]:
    """Draw lists of 1 to 10 numbers; return them and the same lists sorted, padded at the end."""
    length_key, numbers_key = jax.random.split(key)
    lengths = jax.random.randint(length_key, (batch_size, 1), 1, LENGTH + 1)
    numbers = jax.random.randint(numbers_key, (batch_size, LENGTH), 1, NUM_VALUES + 1)
    is_number = jnp.arange(LENGTH) < lengths
    ordered = jnp.sort(jnp.where(is_number, numbers, NUM_VALUES + 1))
    return jnp.where(is_number, numbers, PADDING), jnp.where(is_number, ordered, PADDING)


class Figures(NamedTuple):
    """What a run reached."""

    first_loss: float
    last_loss: float
    sorted_lists: float


def main(num_steps: int = 1000, seed: int = 0) -> Figures:
    """Train for ``num_steps`` and return the share of new lists that are sorted without a fault."""
    init_key, train_key, test_key = jax.random.split(jax.random.key(seed), 3)
    optimizer = optax.adam(optax.cosine_decay_schedule(3e-3, num_steps))

    def loss_of(params: Parameters, key: Key[Array, ""]) -> Float[Array, ""]:
        numbers, ordered = draw(key, batch_size=128)
        losses = optax.softmax_cross_entropy_with_integer_labels(score(params, numbers), ordered)
        return losses.mean(where=ordered != PADDING)

    @jax.jit
    def step(
        params: Parameters, state: optax.OptState, key: Key[Array, ""]
    ) -> tuple[Parameters, optax.OptState, Float[Array, ""]]:
        loss, gradients = jax.value_and_grad(loss_of)(params, key)
        updates, state = optimizer.update(gradients, state)
        return optax.apply_updates(params, updates), state, loss

    params = jax.jit(init)(init_key)
    state = optimizer.init(params)
    losses = []
    for i in range(num_steps):
        params, state, loss = step(params, state, jax.random.fold_in(train_key, i))
        losses.append(loss)

    numbers, ordered = draw(test_key, batch_size=2000)
    is_right = (jax.jit(score)(params, numbers).argmax(axis=-1) == ordered) | (ordered == PADDING)
    return Figures(float(losses[0]), float(losses[-1]), float(is_right.all(axis=1).mean()))


if __name__ == "__main__":
    figures = tyro.cli(main)
    print(f"{figures.sorted_lists:.1%} of 2,000 new lists sorted without a fault")
    if figures.sorted_lists < GOAL:
        sys.exit(f"at least {GOAL:.0%} of the lists must be sorted without a fault.")
