"""The two tables in a config: what they may hold, and that they change where arrays lie."""

import dataclasses
import functools
import json

import chex
import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec
from tiny_corpus import targets_as_text

from flax_transformer.cli.overrides import apply_overrides
from flax_transformer.config import ExperimentConfig, load_config, save_config
from flax_transformer.data.batch import Batch
from flax_transformer.errors import InputError
from flax_transformer.json_config import config_from_json
from flax_transformer.models.make_model import make_model
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.parallel.mesh import MeshConfig, make_mesh, place_rows
from flax_transformer.parallel.parameter_sharding import parameter_spec
from flax_transformer.parallel.sharding_rules import ShardingRules
from flax_transformer.training.optimizer import OptimizerConfig, make_optimizer
from flax_transformer.training.program import make_program
from flax_transformer.training.training_config import TrainingConfig

DEFAULT = ShardingRules()


def with_axes(**changes):
    return ShardingRules(axes=tuple((dict(DEFAULT.axes) | changes).items()))


def with_first_row(pattern, axes):
    return ShardingRules(parameters=((pattern, axes), *DEFAULT.parameters[1:]))


@pytest.fixture(scope="module")
def mesh():
    return make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))


RULES = {
    "default": (DEFAULT, ("tensor", "fsdp"), ("fsdp", "tensor", None)),
    "whole heads": (with_axes(heads="_"), ("tensor", "fsdp"), ("fsdp", None, None)),
    "embed over data, vocab over two axes": (
        with_axes(embed="data", vocab="tensor+fsdp"),
        (("tensor", "fsdp"), "data"),
        ("data", "tensor", None),
    ),
    "whole tables": (
        with_first_row(r"(source|target|output)_embedding/embedding", "_ _"),
        (None, None),
        ("fsdp", "tensor", None),
    ),
}


def same_spec(spec, axes):
    """Compare specs, in which one axis may be written as a tuple of one."""
    return [part if isinstance(part, tuple) or part is None else (part,) for part in axes] == [
        part if isinstance(part, tuple) or part is None else (part,) for part in spec
    ]


@functools.cache
def run_step(name):
    """Return a table, a kernel and the metrics after a step."""
    rules = RULES[name][0]
    config = TransformerConfig(
        architecture="decoder_only",
        source_vocab_size=12,
        target_vocab_size=12,
        model_dim=8,
        num_encoder_layers=0,
        num_decoder_layers=1,
        num_heads=2,
        feed_forward_dim=6,
        dropout_rate=0.0,
        max_positions=6,
        activation="gelu",
    )
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    optimizer = make_optimizer(OptimizerConfig(warmup_steps=1), num_steps=1)
    program = make_program(make_model(config), optimizer, TrainingConfig(), mesh, rules)
    tokens = np.random.default_rng(0).integers(1, 12, (8, 6), dtype=np.int32)
    ones, positions = np.ones_like(tokens), np.tile(np.arange(6, dtype=np.int32), (8, 1))
    pairs = Batch(tokens, ones, positions, tokens, tokens, ones, positions, tokens)
    batch = place_rows(targets_as_text(pairs), mesh)
    key = jax.random.key(0)
    state = program.init_state.lower(key).compile()(key)
    train_step = program.train_step.lower(state, batch).compile()
    state, metrics = train_step(state, batch)
    table = state.params["target_embedding"]["embedding"]
    kernel = state.params["decoder"]["layers_0"]["self_attention"]["query"]["kernel"]
    return table, kernel, metrics


@pytest.mark.slow
@pytest.mark.parametrize("name", list(RULES)[1:])
def test_other_tables_lay_arrays_out_otherwise_and_change_no_value(name):
    _, table_axes, kernel_axes = RULES[name]
    table, kernel, metrics = run_step(name)
    assert same_spec(table.sharding.spec, table_axes)
    assert same_spec(kernel.sharding.spec, kernel_axes)
    expected_table, expected_kernel, expected_metrics = run_step("default")
    assert (table_axes, kernel_axes) != RULES["default"][1:]
    chex.assert_trees_all_close(
        jax.device_get((table, kernel, metrics)),
        jax.device_get((expected_table, expected_kernel, expected_metrics)),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            {"axes": (*DEFAULT.axes, ("heads", "fsdp"))},
            "sharding.axes must name 'heads' once.",
        ),
        (
            {"axes": tuple((dict(DEFAULT.axes) | {"heads": "tensors"}).items())},
            "sharding.axes must split 'heads' over data, fsdp, tensor or _, got 'tensors'.",
        ),
        (
            {"axes": tuple((dict(DEFAULT.axes) | {"heads": "data+data"}).items())},
            "sharding.axes must split 'heads' over each axis of the mesh once, got 'data+data'.",
        ),
        (
            {"axes": tuple((name, axes) for name, axes in DEFAULT.axes if name != "length")},
            "sharding.axes must name 'length', which the models use.",
        ),
        (
            {"axes": tuple((dict(DEFAULT.axes) | {"length": "data"}).items())},
            "sharding.axes must split the dimensions of one array over different axes of the "
            "mesh, got one for two of 'batch length heads'.",
        ),
        (
            {"parameters": (("scale", "rows"),)},
            "sharding.parameters must name axes of sharding.axes, got 'rows' for 'scale'.",
        ),
        (
            {"parameters": (("scale(", "_"),)},
            "sharding.parameters must hold regular expressions, got 'scale(': missing ), "
            "unterminated subpattern at position 5.",
        ),
        (
            {"axes": tuple((dict(DEFAULT.axes) | {"embed": "tensor"}).items())},
            "sharding.parameters must split the dimensions of one parameter over different axes "
            "of the mesh, got 'vocab embed' for '(source|target|output)_embedding/embedding'.",
        ),
    ],
)
def test_tables_that_cannot_work_are_refused(tables, message):
    with pytest.raises(InputError) as raised:
        ShardingRules(**tables)
    assert str(raised.value) == message


def test_a_row_for_another_number_of_dimensions_is_refused(mesh):
    rules = with_first_row(r"_embedding/embedding", "vocab")
    with pytest.raises(InputError) as raised:
        parameter_spec("target_embedding/embedding", (12, 8), mesh, rules)
    assert str(raised.value) == (
        "sharding.parameters must name the axes of target_embedding/embedding, which has shape "
        "(12, 8), got 'vocab'."
    )


def test_two_rows_for_one_parameter_are_refused(mesh):
    rules = ShardingRules(parameters=(("embedding", "vocab embed"), *DEFAULT.parameters))
    with pytest.raises(InputError, match="match target_embedding/embedding once, got 2 matches"):
        parameter_spec("target_embedding/embedding", (12, 8), mesh, rules)


def test_an_alternative_in_a_pattern_ends_with_the_path(mesh):
    rules = ShardingRules(parameters=(("kernel|bias", "_"),))
    with pytest.raises(InputError, match="got 0 matches"):
        parameter_spec("kernel/scale", (3,), mesh, rules)
    assert parameter_spec("norm/bias", (3,), mesh, rules) == PartitionSpec(None)


def test_tables_survive_a_file(tmp_path):
    config = dataclasses.replace(ExperimentConfig(), sharding=with_axes(heads="_", embed="data"))
    save_config(config, tmp_path / "config.json")
    assert load_config(tmp_path / "config.json") == config


@pytest.mark.parametrize("row", [["heads"], ["heads", "tensor", "data"], "heads"])
def test_a_row_of_a_file_that_is_no_pair_is_refused(row):
    values = json.loads(json.dumps({"axes": [row]}))
    with pytest.raises(InputError, match=r"sharding.axes must be"):
        config_from_json(ShardingRules, values, "sharding")


def test_a_command_line_replaces_a_table():
    flat = [part for row in with_axes(heads="_").axes for part in row]
    config = apply_overrides(ExperimentConfig(), ["--sharding.axes", *flat])
    assert config.sharding == with_axes(heads="_")
    rows = [part for row in DEFAULT.parameters for part in row]
    assert apply_overrides(config, ["--sharding.parameters", *rows]).sharding == config.sharding
