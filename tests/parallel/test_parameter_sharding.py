import dataclasses
import functools
import re

import jax
import optax
import pytest
from jax.sharding import PartitionSpec

from flax_transformer.errors import InputError
from flax_transformer.models.make_model import make_model
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.parallel.mesh import MeshConfig, make_mesh
from flax_transformer.parallel.parameter_sharding import parameter_spec, state_shardings
from flax_transformer.parallel.sharding_rules import ShardingRules
from flax_transformer.training.lora import LoraConfig
from flax_transformer.training.state import init_state
from flax_transformer.tree_paths import flatten_tree

RULES = ShardingRules()

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

ENCODER = {
    "architecture": "encoder_only",
    "num_decoder_layers": 0,
    "pooler": "tanh",
    "num_token_types": 2,
}

VARIANTS = {
    "plain": {},
    "learned positions": {"position_encoding": "learned"},
    "untied": {"share_source_target_embedding": False, "share_target_output_embedding": False},
    "gated": {"gated_feed_forward": True, "activation": "gelu"},
    "pre-norm": {"pre_norm": True},
    "biases": {"attention_bias": True, "output_bias": True, "position_encoding": "relative"},
    "masked LM": {**ENCODER, "head": "masked_lm"},
    "classifier": {**ENCODER, "head": "sequence_classification", "num_labels": 3},
    "adapters": {},
    "scanned": {"scan_layers": True, "gated_feed_forward": True, "pre_norm": True},
}


@functools.cache
def abstract_state(variant, optimizer=optax.adam):
    model = make_model(dataclasses.replace(CONFIG, **VARIANTS[variant]))
    lora = LoraConfig(rank=2 if variant == "adapters" else 0)
    init = functools.partial(init_state, model, optimizer(1e-3), lora=lora)
    return jax.eval_shape(init, jax.random.key(0))


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_matches_one_rule(variant, mesh):
    for path, leaf in flatten_tree(abstract_state(variant).params).items():
        assert sum(bool(re.search(f"{pattern}$", path)) for pattern, _ in RULES.parameters) == 1
        assert len(parameter_spec(path, leaf.shape, mesh, RULES)) == leaf.ndim


def test_every_rule_is_needed():
    paths = {path for name in VARIANTS for path in flatten_tree(abstract_state(name).params)}
    for pattern, _ in RULES.parameters:
        assert any(re.search(f"{pattern}$", path) for path in paths), pattern


def test_matrices_are_split_and_a_stack_of_layers_is_not(mesh):
    plain = flatten_tree(abstract_state("plain").params)
    scanned = flatten_tree(abstract_state("scanned").params)
    name = "encoder/{}/self_attention/query/kernel"
    one = parameter_spec(path := name.format("layers_0"), plain[path].shape, mesh, RULES)
    stack = parameter_spec(path := name.format("layers"), scanned[path].shape, mesh, RULES)
    assert one == PartitionSpec("fsdp", "tensor", None)
    assert stack == PartitionSpec(None, *one)


def test_an_unknown_parameter_is_refused(mesh):
    with pytest.raises(InputError, match="must match encoder/extra/kernel once, got 0 matches"):
        parameter_spec("encoder/extra/kernel", (2, 2), mesh, RULES)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"tensor": 4}, r"mesh.tensor must divide .*: \S+/\S+ has shape \(\d.*not a multiple of 4"),
        ({"fsdp": 8}, r"mesh.fsdp must divide .*: \S+/\S+ has shape .* 12 is not a multiple of 8"),
    ],
)
def test_a_dimension_that_does_not_divide_is_named(sizes, message):
    with pytest.raises(InputError, match=message):
        state_shardings(abstract_state("plain"), make_mesh(MeshConfig(**sizes)), RULES)


@pytest.mark.parametrize("variant", ["plain", "scanned"])
def test_moments_lie_as_their_parameters(variant, mesh):
    state = abstract_state(variant)
    shardings = state_shardings(state, mesh, RULES)
    for moment in ("mu", "nu"):
        assert optax.tree_utils.tree_get(shardings.optimizer_state, moment) == shardings.params
    for leaf in (shardings.step, shardings.dropout_key):
        assert leaf.spec == PartitionSpec()
    assert optax.tree_utils.tree_get(shardings.optimizer_state, "count").spec == PartitionSpec()


def test_factored_moments_are_placed_too(mesh):
    state = abstract_state("plain", functools.partial(optax.adafactor, min_dim_size_to_factor=2))
    shardings = state_shardings(state, mesh, RULES)
    assert jax.tree.structure(shardings) == jax.tree.structure(state)
    for leaf, sharding in zip(jax.tree.leaves(state), jax.tree.leaves(shardings), strict=True):
        sharding.shard_shape(leaf.shape)
