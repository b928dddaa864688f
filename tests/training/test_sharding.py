import dataclasses
import functools
import re

import jax
import numpy as np
import optax
import pytest
from jax.sharding import PartitionSpec

from flax_transformer.data.batch import Batch
from flax_transformer.errors import InputError
from flax_transformer.models.encoder_decoder import EncoderDecoder
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.training.sharding import (
    PARAMETER_AXES,
    MeshConfig,
    make_mesh,
    num_batch_shards,
    parameter_spec,
    place_batch,
    state_shardings,
)
from flax_transformer.training.state import init_state
from flax_transformer.tree_paths import flatten_tree

CONFIG = TransformerConfig(
    source_vocab_size=22,
    target_vocab_size=22,
    model_dim=12,
    num_encoder_layers=2,
    num_decoder_layers=2,
    num_heads=2,
    feed_forward_dim=10,
    max_positions=17,
)

VARIANTS = {
    "plain": {},
    "learned positions": {"position_encoding": "learned"},
    "untied": {"share_source_target_embedding": False, "share_target_output_embedding": False},
    "gated": {"gated_feed_forward": True, "activation": "gelu"},
    "pre-norm": {"pre_norm": True},
    "scanned": {"scan_layers": True, "gated_feed_forward": True, "pre_norm": True},
}


@functools.cache
def abstract_state(variant, optimizer=optax.adam):
    model = EncoderDecoder(dataclasses.replace(CONFIG, **VARIANTS[variant]))
    init = functools.partial(init_state, model, optimizer(1e-3))
    return jax.eval_shape(init, jax.random.key(0))


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_matches_one_rule(variant, mesh):
    for path, leaf in flatten_tree(abstract_state(variant).params).items():
        assert sum(bool(re.search(f"{pattern}$", path)) for pattern, _ in PARAMETER_AXES) == 1
        assert len(parameter_spec(path, leaf.shape, mesh)) == leaf.ndim


def test_every_rule_is_needed():
    paths = {path for name in VARIANTS for path in flatten_tree(abstract_state(name).params)}
    for pattern, _ in PARAMETER_AXES:
        assert any(re.search(f"{pattern}$", path) for path in paths), pattern


def test_matrices_are_split_and_a_stack_of_layers_is_not(mesh):
    plain = flatten_tree(abstract_state("plain").params)
    scanned = flatten_tree(abstract_state("scanned").params)
    name = "encoder/{}/self_attention/query/kernel"
    one = parameter_spec(path := name.format("layers_0"), plain[path].shape, mesh)
    stack = parameter_spec(path := name.format("layers"), scanned[path].shape, mesh)
    assert one == PartitionSpec("fsdp", "tensor", None)
    assert stack == PartitionSpec(None, *one)


def test_an_unknown_parameter_is_refused(mesh):
    with pytest.raises(InputError, match="must match encoder/extra/kernel once, got 0 matches"):
        parameter_spec("encoder/extra/kernel", (2, 2), mesh)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"tensor": 4}, r"mesh.tensor must divide .*: \S+/\S+ has shape \(\d.*not a multiple of 4"),
        ({"fsdp": 8}, r"mesh.fsdp must divide .*: \S+/\S+ has shape .* 12 is not a multiple of 8"),
    ],
)
def test_a_dimension_that_does_not_divide_is_named(sizes, message):
    with pytest.raises(InputError, match=message):
        state_shardings(abstract_state("plain"), make_mesh(MeshConfig(**sizes)))


@pytest.mark.parametrize("variant", ["plain", "scanned"])
def test_moments_lie_as_their_parameters(variant, mesh):
    state = abstract_state(variant)
    shardings = state_shardings(state, mesh)
    for moment in ("mu", "nu"):
        assert optax.tree_utils.tree_get(shardings.optimizer_state, moment) == shardings.params
    for leaf in (shardings.step, shardings.dropout_key):
        assert leaf.spec == PartitionSpec()
    assert optax.tree_utils.tree_get(shardings.optimizer_state, "count").spec == PartitionSpec()


def test_factored_moments_are_placed_too(mesh):
    state = abstract_state("plain", functools.partial(optax.adafactor, min_dim_size_to_factor=2))
    shardings = state_shardings(state, mesh)
    assert jax.tree.structure(shardings) == jax.tree.structure(state)
    for leaf, sharding in zip(jax.tree.leaves(state), jax.tree.leaves(shardings), strict=True):
        sharding.shard_shape(leaf.shape)


@pytest.mark.parametrize(
    ("sizes", "shape"),
    [
        ({}, (8, 1, 1)),
        ({"fsdp": 2}, (4, 2, 1)),
        ({"data": 2, "fsdp": -1, "tensor": 2}, (2, 2, 2)),
        ({"data": 1, "tensor": 8}, (1, 1, 8)),
    ],
)
def test_mesh_takes_the_devices_that_are_left(sizes, shape):
    mesh = make_mesh(MeshConfig(**sizes))
    assert tuple(mesh.shape.values()) == shape
    assert num_batch_shards(mesh) == shape[0] * shape[1]


@pytest.mark.parametrize("sizes", [{"data": 3}, {"data": 4}, {"fsdp": 3}, {"fsdp": 16}])
def test_sizes_that_do_not_multiply_to_the_devices_are_refused(sizes):
    with pytest.raises(InputError, match="must multiply to the 8 devices at hand, got"):
        make_mesh(MeshConfig(**sizes))


@pytest.mark.parametrize("sizes", [{"data": 0}, {"tensor": -2}, {"data": -1, "fsdp": -1}])
def test_sizes_that_make_no_mesh_are_refused(sizes):
    with pytest.raises(InputError, match="must be at least 1, one of them may be -1, got"):
        MeshConfig(**sizes)


def test_each_device_gets_its_rows(mesh):
    rows = np.arange(24).reshape(8, 3)
    placed = place_batch(Batch(*(rows + i for i in range(7))), mesh)
    for i, array in enumerate(placed):
        np.testing.assert_array_equal(array, rows + i)
        assert all(shard.data.shape == (2, 3) for shard in array.addressable_shards)
