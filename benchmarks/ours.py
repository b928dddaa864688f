"""The training step of this project, as `flax-transformer train` runs it."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from contenders import Precision
from flax_transformer.data.batch import Batch
from flax_transformer.models.make_model import make_model
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.parallel.mesh import MeshConfig, make_mesh, place_rows
from flax_transformer.parallel.sharding_rules import ShardingRules
from flax_transformer.training.optimizer import OptimizerConfig, make_optimizer
from flax_transformer.training.program import make_program
from flax_transformer.training.training_config import TrainingConfig
from training_shapes import Sentences, Shape, draw_batches

LEARNING_RATE = 1e-4


class OurTrainer:
    """Our contender; see :class:`worker.Trainer`."""

    def __init__(self, precision: Precision, shape: Shape) -> None:
        use_device(shape)
        mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
        optimizer = make_optimizer(
            OptimizerConfig(learning_rate=LEARNING_RATE, schedule="constant", warmup_steps=1),
            num_steps=100,
        )
        is_narrow = shape.narrow_states and precision == "bfloat16"
        training = TrainingConfig(
            label_smoothing=shape.label_smoothing,
            vocab_chunks=shape.vocab_chunks,
            logits_dtype="bfloat16" if is_narrow else "float32",
        )
        model = make_model(make_model_config(precision, shape))
        program = make_program(model, optimizer, training, mesh, ShardingRules())
        self._step = program.train_step
        self._state = program.init_state(jax.random.key(0))
        batches = [pack(batch, shape) for batch in draw_batches(shape)]
        self._batches = itertools.cycle([place_rows(batch, mesh) for batch in batches])
        self._product = MatrixProduct(precision, shape)

    def run_steps(self, count: int) -> float:
        """Run training steps."""
        for _ in range(count):
            self._state, metrics = self._step(self._state, next(self._batches))
        jax.block_until_ready(self._state)
        return float(metrics.loss)

    def run_products(self, count: int) -> None:
        """Multiply two matrices."""
        self._product.run(count)

    def report(self) -> dict[str, Any]:
        """Describe the contender."""
        leaves = jax.tree.leaves(self._state.params)
        return {
            "num_parameters": sum(leaf.size for leaf in leaves),
            "version": f"jax {jax.__version__}",
            "device_memory_bytes": device_memory(),
        }


def make_model_config(precision: Precision, shape: Shape) -> TransformerConfig:
    """Return the model of a shape."""
    return TransformerConfig(
        source_vocab_size=shape.vocab_size,
        target_vocab_size=shape.vocab_size,
        model_dim=shape.model_dim,
        num_encoder_layers=shape.num_layers,
        num_decoder_layers=shape.num_layers,
        num_heads=shape.num_heads,
        feed_forward_dim=shape.feed_forward_dim,
        dropout_rate=shape.dropout_rate,
        max_positions=shape.sentence_length * shape.sentences_per_row,
        compute_dtype=precision if shape.narrow_states else "float32",
        product_dtype=precision,
        attention_implementation="auto" if shape.device == "gpu" else "xla",
        remat=shape.remat,
    )


def pack(batch: Sentences, shape: Shape) -> Batch:
    """Put ``sentences_per_row`` sentences into each row."""
    index = np.arange(shape.num_sentences, dtype=np.int32)[:, None]
    segments = np.broadcast_to(index % shape.sentences_per_row + 1, batch.labels.shape)
    positions = np.arange(shape.sentence_length, dtype=np.int32)
    positions = np.broadcast_to(positions, batch.labels.shape)
    arrays = Batch(
        source=batch.source,
        source_segment_ids=segments,
        source_positions=positions,
        target=batch.target,
        labels=batch.labels,
        target_segment_ids=segments,
        target_positions=positions,
        pair_ids=np.broadcast_to(index, batch.labels.shape),
    )
    return Batch._make(np.ascontiguousarray(array.reshape(shape.num_rows, -1)) for array in arrays)


def use_device(shape: Shape) -> None:
    """Choose the platform; to be called before JAX is used."""
    if shape.device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    elif jax.default_backend() != "gpu":
        raise SystemExit("this shape needs a GPU that JAX can use; --device cpu goes without one")


def device_memory() -> int | None:
    """Return the most memory that arrays have taken on an accelerator so far, in bytes."""
    stats = jax.devices()[0].memory_stats()
    return None if stats is None else stats.get("peak_bytes_in_use")


class MatrixProduct:
    """A product of two square matrices, to see what the machine can do; sums are float32."""

    def __init__(self, precision: Precision, shape: Shape) -> None:
        self._matrix = jnp.ones((shape.product_size, shape.product_size), precision)

        @jax.jit
        def multiply(left: jax.Array, right: jax.Array) -> jax.Array:
            return jnp.matmul(left, right, preferred_element_type=jnp.float32)

        self._multiply = multiply

    def run(self, count: int) -> None:
        """Multiply ``count`` times; wait for the last."""
        for _ in range(count):
            result = self._multiply(self._matrix, self._matrix)
        result.block_until_ready()
