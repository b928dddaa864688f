"""What the compiled program of a run holds on a device, and how it trains in low precision."""

import dataclasses
import functools
import math
import re

import chex
import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from flax_transformer.data.batch import TextBatch
from flax_transformer.models.make_model import make_model
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.parallel.mesh import MeshConfig, batch_sharding, make_mesh, place_rows
from flax_transformer.parallel.sharding_rules import ShardingRules
from flax_transformer.training.guard import LossScaleConfig, init_guard
from flax_transformer.training.optimizer import OptimizerConfig, make_optimizer
from flax_transformer.training.program import make_program
from flax_transformer.training.training_config import TrainingConfig

# No product of some of these sizes is one of others.
B, T, V = 20, 10, 58
CONFIG = TransformerConfig(
    architecture="decoder_only",
    source_vocab_size=V,
    target_vocab_size=V,
    model_dim=16,
    num_encoder_layers=0,
    num_decoder_layers=1,
    num_heads=2,
    feed_forward_dim=24,
    dropout_rate=0.0,
    max_positions=T,
    scan_layers=True,
    pre_norm=True,
)
OPTIMIZER = make_optimizer(OptimizerConfig(learning_rate=1e-2, warmup_steps=5), num_steps=100)


def program_of(config, sizes, *, rules=ShardingRules(), **training):
    """Return the mesh and the program of a run."""
    mesh = make_mesh(
        MeshConfig(data=sizes[0], fsdp=sizes[1], tensor=sizes[2]),
        jax.devices()[: math.prod(sizes)],
    )
    return mesh, make_program(
        make_model(config), OPTIMIZER, TrainingConfig(**training), mesh, rules
    )


INIT_CONFIG = dataclasses.replace(
    CONFIG,
    source_vocab_size=90,
    target_vocab_size=90,
    model_dim=64,
    num_decoder_layers=2,
    feed_forward_dim=128,
)


@functools.cache
def compile_init(sizes):
    """Return the abstract state, and the compiled function that makes it."""
    _, program = program_of(INIT_CONFIG, sizes)
    return program.abstract_state, program.init_state.lower(jax.random.key(0)).compile()


def shard_bytes(state):
    """Return the bytes of a state on one device, and those of the whole."""
    leaves = jax.tree.leaves(state)
    shards = [leaf.sharding.shard_shape(leaf.shape) for leaf in leaves]
    on_device = sum(
        math.prod(shard) * leaf.dtype.itemsize for shard, leaf in zip(shards, leaves, strict=True)
    )
    return on_device, sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)


def test_a_state_is_made_where_it_lies_and_never_whole_on_a_device():
    abstract_state, init_state = compile_init((1, 4, 2))
    on_device, whole = shard_bytes(abstract_state)
    memory = init_state.memory_analysis()
    assert on_device < whole / 4
    # The compiler counts a pointer for each array of the result, too.
    num_arrays = len(jax.tree.leaves(abstract_state))
    assert on_device <= memory.output_size_in_bytes <= on_device + 16 * num_arrays
    assert memory.output_size_in_bytes + memory.temp_size_in_bytes < whole / 2


def test_a_state_is_the_same_on_every_mesh():
    (_, init_one), (_, init_many) = compile_init((1, 1, 1)), compile_init((1, 4, 2))
    one, many = (init(jax.random.key(3)) for init in (init_one, init_many))
    chex.assert_trees_all_equal(jax.device_get(many), jax.device_get(one))
    for leaf, expected in zip(
        jax.tree.leaves(many), jax.tree.leaves(compile_init((1, 4, 2))[0]), strict=True
    ):
        assert leaf.sharding == expected.sharding


def array_shapes(config, sizes, **options):
    """Return the shapes of all arrays in a compiled step, those in fused loops among them."""
    mesh, program = program_of(config, sizes, **options)
    rows = jax.ShapeDtypeStruct((B, T), np.int32, sharding=batch_sharding(mesh))
    lowered = program.train_step.lower(program.abstract_state, TextBatch(*[rows] * 6))
    text = lowered.compile().as_text()
    return {
        tuple(map(int, dims.split(","))) for dims in re.findall(r"\b[a-z]+[0-9]+\[([\d,]+)\]", text)
    }


def test_no_device_of_a_mesh_holds_whole_logits():
    shapes = array_shapes(CONFIG, (2, 2, 2))
    rows = B // 4
    assert (rows, T // 2, V) in shapes
    assert max(map(math.prod, shapes)) < rows * T * V


def test_logits_are_whole_where_the_rules_say_so():
    """So the test above would notice."""
    axes = dict(ShardingRules().axes) | {"logits_length": "_"}
    rules = ShardingRules(axes=tuple(axes.items()))
    assert (B // 4, T, V) in array_shapes(CONFIG, (2, 2, 2), rules=rules)


def test_with_parts_of_the_vocabulary_no_logits_of_all_of_it_stand():
    shapes = array_shapes(CONFIG, (1, 1, 1), vocab_chunks=4)  # 58 = 3 * 15 + 13
    assert (B, T, -(-V // 4)) in shapes
    assert max(map(math.prod, shapes)) < B * T * V / 2


def make_batches(count):
    """Make batches of a language in which each token names the next one, but for some noise."""
    rng = np.random.default_rng(0)
    successor = rng.permutation(V)
    batches = []
    for _ in range(count):
        tokens = [rng.integers(0, V, B)]
        for _ in range(T):
            noise = rng.random(B) < 0.2
            tokens.append(np.where(noise, rng.integers(0, V, B), successor[tokens[-1]]))
        rows = np.stack(tokens, axis=1).astype(np.int32)
        ones, positions = np.ones((B, T), np.int32), np.tile(np.arange(T, dtype=np.int32), (B, 1))
        pair_ids = np.tile(np.arange(B, dtype=np.int32)[:, None], (1, T))
        tokens, labels = rows[:, :-1], rows[:, 1:]
        batches.append(TextBatch(tokens, ones, positions, labels, ones, pair_ids))
    return batches


@functools.cache
def first_state():
    """Make the state that all trainings start with, in memory of the host."""
    _, program = program_of(CONFIG, (1, 1, 1))
    return jax.device_get(program.init_state(jax.random.key(0)))


@functools.cache
def compile_step(compute_dtype, *, is_scaled=False, accumulation_steps=1):
    mesh, program = program_of(
        dataclasses.replace(CONFIG, compute_dtype=compute_dtype),
        (1, 1, 1),
        loss_scale=LossScaleConfig(initial=1.0 if is_scaled else None, growth_interval=10),
        accumulation_steps=accumulation_steps,
    )
    rows = place_rows(make_batches(1)[0], mesh)
    return program.train_step.lower(program.abstract_state, rows).compile()


@functools.cache
def train(compute_dtype, *, initial_scale=None, accumulation_steps=1):
    """Return the metrics of 40 steps."""
    step = compile_step(
        compute_dtype,
        is_scaled=initial_scale is not None,
        accumulation_steps=accumulation_steps,
    )
    guard = init_guard(LossScaleConfig(initial=initial_scale))
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    sharding = NamedSharding(mesh, PartitionSpec())
    state = jax.device_put(first_state().replace(guard=guard), sharding)
    all_metrics = []
    for batch in make_batches(40):
        state, metrics = step(state, place_rows(batch, mesh))
        all_metrics.append(jax.device_get(metrics))
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {np.dtype(np.float32)}
    return all_metrics


def losses(all_metrics):
    return [float(metrics.loss) for metrics in all_metrics]


def test_float16_with_a_scaled_loss_trains_as_float32():
    expected = losses(train("float32"))
    assert expected[-1] < 0.8 * expected[0]
    metrics = train("float16", initial_scale=2.0**12, accumulation_steps=2)
    np.testing.assert_allclose(losses(metrics), expected, rtol=2e-2)
    assert losses(metrics) != expected
    assert metrics[-1].num_skipped == 0
    assert [step.loss_scale for step in metrics[::10]] == [2.0**12, 2.0**13, 2.0**14, 2.0**15]


def test_float16_overflows_at_first_and_trains_then():
    metrics = train("float16", initial_scale=2.0**24, accumulation_steps=2)
    num_skipped = int(metrics[-1].num_skipped)
    assert num_skipped > 0
    assert all(np.isfinite(losses(metrics)))
    assert min(step.loss_scale for step in metrics) < 2.0**24
    made = [step for step in metrics if np.isfinite(step.gradient_norm)]
    assert len(made) == 40 - num_skipped
    assert losses(made)[-1] < 0.9 * losses(made)[0]


def test_bfloat16_trains_nearly_as_float32():
    np.testing.assert_allclose(losses(train("bfloat16")), losses(train("float32")), rtol=4e-2)
