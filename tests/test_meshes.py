"""Real batches through what the trainer runs: the mesh and the ways to save memory change nothing.

The losses of all steps and the parameters after the last one are compared, by Adam, which divides
by the size of a gradient: what is wrong in a small one would show as in a large one.
"""

import dataclasses
import functools
import itertools
import math
from typing import Any

import chex
import jax
import numpy as np
import pytest
from tiny_corpus import targets_as_text

from flax_transformer.data.batch import Batch
from flax_transformer.data.pipeline import PipelineConfig, make_training_batches
from flax_transformer.data.sentence_pair import SentencePair
from flax_transformer.data.sentences.corpus import generate_corpus
from flax_transformer.data.tokenizer import TokenizerConfig, TranslationTokenizer, train_tokenizer
from flax_transformer.models.make_model import make_model
from flax_transformer.models.stack import stack_layers, unstack_layers
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.parallel.mesh import MeshConfig, make_mesh, place_rows
from flax_transformer.parallel.sharding_rules import ShardingRules
from flax_transformer.training.guard import LossScaleConfig, init_guard
from flax_transformer.training.optimizer import OptimizerConfig, make_optimizer
from flax_transformer.training.program import TrainingProgram, make_program
from flax_transformer.training.state import TrainState
from flax_transformer.training.training_config import TrainingConfig

NUM_STEPS = 20
ACCUMULATION_STEPS = 4
VOCAB_SIZE = 320
MAX_LENGTH = 64
NUM_ROWS = 32  # so that eight devices can share them out four times
PIPELINES = {
    "packed": PipelineConfig(batch_tokens=NUM_ROWS * MAX_LENGTH, max_length=MAX_LENGTH),
    "bucketed": PipelineConfig(
        batching="bucketed", batch_tokens=NUM_ROWS * 48, max_length=48, bucket_growth=1.6
    ),
}
MODELS = {
    "encoder_decoder": TransformerConfig(
        source_vocab_size=VOCAB_SIZE,
        target_vocab_size=VOCAB_SIZE,
        model_dim=16,
        num_encoder_layers=1,
        num_decoder_layers=2,
        num_heads=4,
        feed_forward_dim=32,
        activation="gelu",  # smooth: a ReLU whose input is all but 0 may open by rounding
        dropout_rate=0.0,
        max_positions=MAX_LENGTH,
    )
}
MODELS["decoder_only"] = dataclasses.replace(
    MODELS["encoder_decoder"],
    architecture="decoder_only",
    num_encoder_layers=0,
    pre_norm=True,
    position_encoding="learned",
)
OPTIMIZER = make_optimizer(OptimizerConfig(learning_rate=3e-3, warmup_steps=5), num_steps=NUM_STEPS)


@functools.cache
def corpus() -> tuple[list[SentencePair], TranslationTokenizer]:
    sentences = generate_corpus()["validation"]
    pairs = [SentencePair(sentence.english, sentence.portuguese) for sentence in sentences]
    return pairs, train_tokenizer(TokenizerConfig(vocab_size=VOCAB_SIZE), pairs, seed=0)


@functools.cache
def read_batches(batching: str) -> list[Batch]:
    pairs, tokenizer = corpus()
    batches = make_training_batches(
        pairs, tokenizer, PIPELINES[batching], seed=0, row_multiple=NUM_ROWS
    )
    return list(itertools.islice(batches, NUM_STEPS))


@functools.cache
def initial_params(architecture: str) -> Any:
    model = make_model(MODELS[architecture])
    tokens = np.zeros((1, 1), np.int32)
    inputs = (tokens,) if architecture == "decoder_only" else (tokens, tokens)
    return jax.device_get(jax.jit(model.init)(jax.random.key(0), *inputs)["params"])


def place_state(program: TrainingProgram, params: Any) -> TrainState:
    """Make the state before the first step, with the parameters given."""
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), program.abstract_state)
    state = zeros.replace(
        params=params,
        optimizer_state=OPTIMIZER.init(params),
        guard=init_guard(LossScaleConfig()),
    )
    return jax.device_put(state, jax.tree.map(lambda leaf: leaf.sharding, program.abstract_state))


def train(
    architecture: str,
    batching: str,
    sizes: tuple[int, int, int],
    *,
    accumulation_steps: int = 1,
    vocab_chunks: int = 1,
    **changes: Any,
) -> tuple[list[float], Any]:
    """Return the losses, and the parameters, those of layers unstacked."""
    config = dataclasses.replace(MODELS[architecture], **changes)
    mesh = make_mesh(
        MeshConfig(data=sizes[0], fsdp=sizes[1], tensor=sizes[2]),
        jax.devices()[: math.prod(sizes)],
    )
    training = TrainingConfig(
        num_steps=NUM_STEPS, accumulation_steps=accumulation_steps, vocab_chunks=vocab_chunks
    )
    program = make_program(make_model(config), OPTIMIZER, training, mesh, ShardingRules())
    params = initial_params(architecture)
    state = place_state(program, stack_layers(params) if config.scan_layers else params)
    losses, compiled_steps = [], {}
    for batch in read_batches(batching):
        is_pair = architecture == "encoder_decoder"
        rows = place_rows(batch if is_pair else targets_as_text(batch), mesh)
        if rows.labels.shape not in compiled_steps:
            lowered = program.train_step.lower(state, rows)
            compiled_steps[rows.labels.shape] = lowered.compile()
        state, metrics = compiled_steps[rows.labels.shape](state, rows)
        losses.append(float(metrics.loss))
    assert int(metrics.num_skipped) == 0
    return losses, unstack_layers(jax.device_get(state.params))


@functools.cache
def train_plainly(architecture: str, batching: str) -> tuple[list[float], Any]:
    """Train on one device, all layers in a loop and nothing computed twice."""
    return train(architecture, batching, (1, 1, 1))


SCAN = {"scan_layers": True}
SPLIT = {"accumulation_steps": ACCUMULATION_STEPS}
CASES = {
    "one device, accumulated": (
        "encoder_decoder", "packed", (1, 1, 1), SCAN | SPLIT | {"remat": "dots"}
    ),
    "data": ("encoder_decoder", "packed", (8, 1, 1), {}),
    "data, accumulated": ("encoder_decoder", "packed", (8, 1, 1), SCAN | SPLIT),
    "fsdp, accumulated": (
        "encoder_decoder", "packed", (1, 8, 1), SCAN | SPLIT | {"remat": "full"}
    ),
    "all": ("encoder_decoder", "packed", (2, 2, 2), SCAN | {"remat": "full"}),
    "all, accumulated, in buckets": (
        "decoder_only", "bucketed", (2, 2, 2), SCAN | SPLIT | {"remat": "full"}
    ),
    "tensor": ("encoder_decoder", "packed", (2, 1, 4), SCAN),
    "tensor, accumulated": (
        "encoder_decoder",
        "packed",
        (2, 1, 4),
        SCAN | SPLIT | {"remat": "dots_no_batch", "vocab_chunks": 3},
    ),
}  # fmt: skip


def test_batches_are_packed_and_bucketed():
    packed, bucketed = map(read_batches, PIPELINES)
    assert all(batch.target.shape == (NUM_ROWS, MAX_LENGTH) for batch in packed)
    assert all(batch.target_segment_ids.max() > 1 for batch in packed)
    assert len({batch.target.shape for batch in bucketed}) == 2


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_training_is_the_same(case: str) -> None:
    architecture, batching, sizes, options = CASES[case]
    expected_losses, expected_params = train_plainly(architecture, batching)
    losses, params = train(architecture, batching, sizes, **options)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected_params))
    chex.assert_trees_all_close(params, expected_params, rtol=0, atol=1e-5 * largest)
