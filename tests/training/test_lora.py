"""Adapters and frozen parts: what a training changes, and what it leaves as it was."""

import dataclasses
import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_transformer.data.batch import TextBatch
from flax_transformer.errors import InputError
from flax_transformer.models.make_model import make_model
from flax_transformer.models.parameters import abstract_parameters
from flax_transformer.models.stack import stack_layers, unstack_layers
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.parallel.mesh import MeshConfig, make_mesh, place_rows
from flax_transformer.parallel.sharding_rules import ShardingRules
from flax_transformer.training.lora import LoraConfig, add_adapters, merge_adapters, take_adapters
from flax_transformer.training.optimizer import OptimizerConfig, make_optimizer
from flax_transformer.training.program import make_program
from flax_transformer.training.state import find_trained
from flax_transformer.training.trained_part import join_parameters, match_paths, split_parameters
from flax_transformer.training.training_config import TrainingConfig
from flax_transformer.tree_paths import flatten_tree

B, T, V = 4, 5, 20
CONFIG = TransformerConfig(
    source_vocab_size=V,
    target_vocab_size=V,
    model_dim=12,
    num_encoder_layers=2,
    num_decoder_layers=2,
    num_heads=2,
    head_dim=5,
    feed_forward_dim=10,
    dropout_rate=0.0,
    max_positions=T,
)
# What is trained is the decoder alone: less to compile.
TRAINED_CONFIG = dataclasses.replace(
    CONFIG, architecture="decoder_only", num_encoder_layers=0, num_decoder_layers=1
)
ALL_KERNELS = LoraConfig(rank=3, alpha=7.0, kernels=("kernel",))


@functools.cache
def base():
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: rng.normal(size=leaf.shape).astype(np.float32),
        abstract_parameters(make_model(CONFIG)),
    )


@functools.cache
def adapted():
    """Parameters of which no adapter is zero."""
    params = add_adapters(base(), ALL_KERNELS, jax.random.key(1))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: np.float32(leaf + 0.1 * rng.normal(size=leaf.shape)), params)


@functools.cache
def make_batch():
    tokens, labels = np.random.default_rng(0).integers(1, V, (2, B, T), dtype=np.int32)
    ones = np.ones((B, T), np.int32)
    positions = np.tile(np.arange(T, dtype=np.int32), (B, 1))
    return TextBatch(tokens, ones, positions, labels, ones, ones)


@functools.cache
def run_steps(training, *, is_scanned=False, sizes=(1, 1, 1), clip_norm=1.0, num_steps=3):
    """Return the states before and after some steps, and the losses."""
    data, fsdp, tensor = sizes
    mesh = make_mesh(
        MeshConfig(data=data, fsdp=fsdp, tensor=tensor), jax.devices()[: math.prod(sizes)]
    )
    optimizer = make_optimizer(
        OptimizerConfig(learning_rate=0.1, warmup_steps=1, clip_norm=clip_norm), num_steps=9
    )
    model = make_model(dataclasses.replace(TRAINED_CONFIG, scan_layers=is_scanned))
    program = make_program(model, optimizer, training, mesh, ShardingRules())
    state = program.init_state(jax.random.key(0))
    batch = place_rows(make_batch(), mesh)
    step = program.train_step.lower(program.abstract_state, batch).compile()
    before = jax.device_get(state)
    losses = []
    for _ in range(num_steps):
        state, metrics = step(state, batch)
        losses.append(float(metrics.loss))
    return before, jax.device_get(state), losses


def changed_paths(before, after):
    old, new = flatten_tree(before.params), flatten_tree(after.params)
    assert old.keys() == new.keys()
    return {path for path in old if not np.array_equal(old[path], new[path])}


def test_adapters_that_are_zero_change_nothing():
    merged = merge_adapters(add_adapters(base(), ALL_KERNELS, jax.random.key(1)), ALL_KERNELS)
    chex.assert_trees_all_equal(merged, base())


@pytest.mark.parametrize(
    ("path", "equation"),
    [
        ("encoder/layers_0/self_attention/query", "btd,dr,rnh->btnh"),
        ("decoder/layers_1/cross_attention/output", "btnh,nhr,rd->btd"),
        ("encoder/layers_1/feed_forward/hidden", "btd,dr,rf->btf"),
    ],
)
def test_a_merged_kernel_applies_both_paths(path, equation):
    """The product with the sum is the sum of the product with W and of A's and B's in turn."""
    leaves = flatten_tree(adapted())
    kernel = leaves[f"{path}/kernel"]
    a, b = leaves[f"{path}/lora_a"], leaves[f"{path}/lora_b"]
    num_inputs = 2 if path.endswith("output") else 1
    inputs, outputs = kernel.shape[:num_inputs], kernel.shape[num_inputs:]
    x = np.random.default_rng(1).normal(size=(2, 3, *inputs))
    axes = tuple(range(-num_inputs, 0)), tuple(range(num_inputs))
    expected = np.tensordot(x, kernel, axes) + 7.0 / 3 * np.einsum(
        equation, x, a.reshape(*inputs, 3), b.reshape(3, *outputs)
    )
    merged = flatten_tree(merge_adapters(adapted(), ALL_KERNELS))[f"{path}/kernel"]
    np.testing.assert_allclose(np.tensordot(x, merged, axes), expected, rtol=1e-4, atol=1e-5)


def test_stacked_layers_are_adapted_one_by_one():
    merged = merge_adapters(adapted(), ALL_KERNELS)
    stacked = merge_adapters(stack_layers(adapted()), ALL_KERNELS)
    chex.assert_trees_all_close(unstack_layers(stacked), merged, atol=1e-6)
    shapes = jax.tree.map(
        jnp.shape, add_adapters(stack_layers(base()), ALL_KERNELS, jax.random.key(0))
    )
    assert shapes == jax.tree.map(jnp.shape, stack_layers(adapted()))


def test_adapters_alone_and_the_base_are_the_whole():
    adapters = take_adapters(adapted())
    plain, _ = split_parameters(adapted(), flatten_tree(base()))
    chex.assert_trees_all_equal(join_parameters(plain, adapters), adapted())


@pytest.mark.parametrize("is_scanned", [False, True])
def test_only_adapters_and_what_is_named_are_trained(is_scanned):
    training = TrainingConfig(lora=LoraConfig(rank=2, trained=("norm/bias",)))
    before, after, losses = run_steps(training, is_scanned=is_scanned)
    changed = changed_paths(before, after)
    assert changed == find_trained(before.params, lora=training.lora)
    assert {path.rpartition("/")[-1] for path in changed} == {"lora_a", "lora_b", "bias"}
    assert losses[-1] < losses[0]
    moments = [path for path in flatten_tree(after.optimizer_state) if "/mu/" in path]
    assert len(moments) == len(changed)


def test_the_first_loss_is_that_of_the_base():
    _, _, losses = run_steps(TrainingConfig(lora=LoraConfig(rank=2)), num_steps=1)
    _, _, expected = run_steps(TrainingConfig(), num_steps=1)
    assert losses == expected


def test_what_is_frozen_stays_bit_by_bit_and_has_no_moments():
    before, after, losses = run_steps(TrainingConfig(frozen=("_attention/", "embedding")))
    changed = changed_paths(before, after)
    assert changed == {
        path
        for path in flatten_tree(before.params)
        if "embedding" not in path and "_attention/" not in path
    }
    assert losses[-1] < losses[0]
    moments = [path for path in flatten_tree(after.optimizer_state) if "/mu/" in path]
    assert len(moments) == len(changed)


def test_what_is_trained_moves_as_if_nothing_were_frozen():
    """Of the first step, before the gradients differ, and without clipping by a common norm."""
    options = {"clip_norm": None, "num_steps": 1}
    _, expected, _ = run_steps(TrainingConfig(), **options)
    before, after, _ = run_steps(TrainingConfig(frozen=("embedding",)), **options)
    trained, _ = split_parameters(after.params, find_trained(before.params, frozen=["embedding"]))
    chex.assert_trees_all_close(trained["decoder"], expected.params["decoder"], atol=1e-5)


@pytest.mark.parametrize(
    "training",
    [TrainingConfig(lora=LoraConfig(rank=2)), TrainingConfig(frozen=("embedding",))],
    ids=["adapters", "frozen"],
)
def test_many_devices_compute_what_one_computes(training):
    _, one, losses = run_steps(training)
    _, many, many_losses = run_steps(training, sizes=(2, 2, 2))
    np.testing.assert_allclose(many_losses, losses, rtol=1e-5)
    assert losses[-1] < losses[0]
    chex.assert_trees_all_equal_shapes(many, one)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LoraConfig(rank=-1), r"training\.lora\.rank must not be negative, got -1"),
        (lambda: LoraConfig(alpha=0.0), r"training\.lora\.alpha must be positive"),
        (lambda: LoraConfig(kernels=()), r"training\.lora\.kernels must hold a pattern"),
        (lambda: LoraConfig(kernels=("(",)), r"training\.lora\.kernels .* regular expressions"),
        (lambda: TrainingConfig(frozen=("(",)), r"training\.frozen .* regular expressions"),
        (
            lambda: TrainingConfig(frozen=("x",), lora=LoraConfig(rank=1)),
            r"training\.frozen must be empty with training\.lora\.rank",
        ),
        (lambda: find_trained(base(), frozen=("encodr/",)), r"training\.frozen .* 'encodr/'"),
        (lambda: find_trained(base(), frozen=(".",)), r"training\.frozen must leave something"),
        (
            lambda: add_adapters(base(), LoraConfig(rank=1, kernels=("norm",)), jax.random.key(0)),
            r"training\.lora\.kernels must match parameters, got 'norm'",
        ),
        (
            lambda: match_paths({"a/b"}, ["c"], name="x"),
            r"x must match parameters, got 'c', which is found in none of 1 paths such as a/b",
        ),
    ],
)
def test_what_cannot_work_is_refused_by_name(make, message):
    with pytest.raises(InputError, match=message) as error:
        make()
    assert "\n" not in str(error.value)
