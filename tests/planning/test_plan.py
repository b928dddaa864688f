import dataclasses
import functools
import json
import math
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jaxpr_flops import count_jaxpr_flops
from tiny_corpus import make_batches

from flax_transformer.data.batch import TextBatch
from flax_transformer.errors import InputError
from flax_transformer.models.make_model import make_model
from flax_transformer.parallel.mesh import MeshConfig, make_mesh, place_rows
from flax_transformer.planning.compiled_step import largest_batch, with_vocabulary_bound
from flax_transformer.planning.devices import find_device
from flax_transformer.planning.plan import make_plan
from flax_transformer.planning.report import format_plan, plan_to_json
from flax_transformer.training.lora import LoraConfig
from flax_transformer.training.optimizer import make_optimizer
from flax_transformer.training.program import make_program

ROOT = Path(__file__).parents[2]
H200 = find_device("h200")
ONE = MeshConfig(data=1)
MESHES = [MeshConfig(data=1, fsdp=8), MeshConfig(data=2, fsdp=2, tensor=2)]


def mesh_of(config):
    return make_mesh(config, jax.devices()[: config.data * config.fsdp * config.tensor])


@functools.cache
def plan_of(experiment, sizes=ONE):
    return make_plan(experiment, mesh_of(sizes), H200)


def with_options(experiment, *, training=None, **model):
    return dataclasses.replace(
        experiment,
        model=dataclasses.replace(experiment.model, **model),
        training=dataclasses.replace(experiment.training, **(training or {})),
    )


def make_real_program(experiment, mesh):
    """Return the program that training makes, a first state and a batch of real arrays."""
    config = with_vocabulary_bound(experiment)
    optimizer = make_optimizer(config.optimizer, num_steps=config.training.num_steps)
    model = make_model(config.model)
    program = make_program(model, optimizer, config.training, mesh, config.sharding)
    rows = np.ones((16, 12), np.int32)
    batch = place_rows(TextBatch._make(rows for _ in TextBatch._fields), mesh)
    return program, program.init_state(jax.random.key(0)), batch


def bytes_on(device, tree):
    return sum(
        shard.data.nbytes
        for leaf in jax.tree.leaves(tree)
        for shard in leaf.addressable_shards
        if shard.device == device
    )


@pytest.mark.parametrize("sizes", MESHES)
def test_planned_memory_is_that_of_the_arrays_and_of_the_step_that_trains(experiment, sizes):
    mesh = mesh_of(sizes)
    plan = plan_of(experiment, sizes)
    program, state, batch = make_real_program(experiment, mesh)
    for device in (jax.devices()[0], jax.devices()[-1]):
        assert plan.memory.parameters == bytes_on(device, state.params)
        assert plan.memory.optimizer_state == bytes_on(device, state.optimizer_state)
    stats = program.train_step.lower(state, batch).compile().memory_analysis()
    reported = (
        stats.argument_size_in_bytes
        + stats.output_size_in_bytes
        - stats.alias_size_in_bytes
        + stats.temp_size_in_bytes
    )
    assert plan.memory.total == pytest.approx(reported, rel=0.1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {
            "product_dtype": "bfloat16",
            "num_decoder_layers": 3,
            "scan_layers": True,
            "remat": "full",
        },
        {"training": {"accumulation_steps": 2, "vocab_chunks": 2}},
    ],
    ids=str,
)
def test_flops_are_those_of_the_jaxpr(experiment, options):
    experiment = with_options(experiment, **options)
    mesh = mesh_of(ONE)
    program, state, batch = make_real_program(experiment, mesh)
    expected = count_jaxpr_flops(program.train_step.trace(state, batch).jaxpr.jaxpr)
    assert plan_of(experiment).device_flops == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("sizes", MESHES)
def test_devices_share_the_work(experiment, sizes):
    whole, plan = plan_of(experiment), plan_of(experiment, sizes)
    assert 8 * plan.device_flops == pytest.approx(whole.device_flops, rel=0.05)
    assert plan.num_tokens == whole.num_tokens == 16 * 12
    assert not any(traffic.sent_bytes for traffic in whole.traffic.values())
    assert sum(traffic.sent_bytes for traffic in plan.traffic.values()) > 0


def test_data_parallel_devices_sum_every_gradient_once(experiment):
    plan = plan_of(experiment, MeshConfig(data=8))
    reduced = plan.traffic["all-reduce"].result_bytes
    # Beside the gradients there are a few scalars: the loss, the number of tokens.
    assert plan.memory.gradients <= reduced < plan.memory.gradients + 100
    assert plan.memory.gradients == 4 * plan.num_parameters


def test_a_model_of_16_bits_gathers_its_weights_in_16_bits_and_only_if_they_are_split(experiment):
    experiment = with_options(
        experiment, compute_dtype="bfloat16", num_decoder_layers=3, scan_layers=True, remat="full"
    )
    whole = plan_of(experiment)
    split = plan_of(experiment, MeshConfig(data=1, fsdp=8))
    copied = plan_of(experiment, MeshConfig(data=8))
    # A layer's weights are needed forward, in the recomputation and backward, a table's once.
    tables = 2 * experiment.tokenizer.vocab_size * experiment.model.model_dim
    gathered = split.traffic["all-gather"].result_bytes
    assert 0 < gathered <= 2 * (3 * (split.num_parameters - tables) + tables)
    assert copied.traffic["all-gather"].result_bytes == 0
    # The share of the work, and the tables, which a device holds whole while it needs them.
    assert split.memory.total < 2 * whole.memory.total / 8
    assert copied.memory.parameters == whole.memory.parameters


def test_flops_are_six_for_each_parameter_and_token_and_those_of_attention(experiment):
    plan, model = plan_of(experiment), experiment.model
    # Scores and values of every pair of positions, forward and twice backward.
    attention = 3 * plan.num_tokens * 2 * (2 * plan.row_length * model.model_dim)
    # A token's vector is looked up, not multiplied; biases and norms are in no product either.
    looked_up = 6 * experiment.tokenizer.vocab_size * model.model_dim * plan.num_tokens
    products = plan.model_flops - looked_up + attention
    assert plan.device_flops == pytest.approx(products, rel=0.05)


def test_recomputed_layers_take_work_in_place_of_memory(experiment):
    def plan(remat):
        return plan_of(
            with_options(experiment, num_decoder_layers=3, scan_layers=True, remat=remat)
        )

    kept, recomputed = plan("none"), plan("full")
    assert 1.0 < recomputed.device_flops / kept.device_flops < 4 / 3
    assert recomputed.memory.activations < kept.memory.activations
    assert recomputed.model_flops == kept.model_flops


def test_the_largest_bucket_is_planned(experiment):
    pipeline = dataclasses.replace(
        experiment.pipeline, batching="bucketed", batch_tokens=160, max_length=20
    )
    bucketed = dataclasses.replace(experiment, pipeline=pipeline)
    # Sixteen rows of eight positions are 128, eight of twelve 96, eight of twenty 160.
    assert largest_batch(bucketed, mesh_of(MeshConfig(data=8))) == (8, 20)


def test_the_rows_are_those_that_training_makes(experiment):
    pipeline = dataclasses.replace(experiment.pipeline, batch_tokens=60 * 40, max_length=40)
    for num_streams in (1, 3, 5):
        config = dataclasses.replace(
            with_options(experiment, max_positions=40, training={"accumulation_steps": 2}),
            pipeline=dataclasses.replace(pipeline, num_streams=num_streams),
        )
        planned = largest_batch(config, mesh_of(MeshConfig(data=2, fsdp=2, tensor=2)))
        batches = make_batches("packed", config=config.pipeline, row_multiple=2 * 2 * 2)
        assert next(batches).source.shape == planned


def test_what_is_frozen_has_no_gradients_no_optimizer_state_and_less_work(experiment):
    whole = plan_of(experiment)
    half = plan_of(with_options(experiment, training={"frozen": ("feed_forward", "embedding")}))
    low = plan_of(with_options(experiment, training={"lora": LoraConfig(rank=2)}))
    for plan in (half, low):
        assert plan.num_trained < whole.num_trained == whole.num_parameters
        assert plan.memory.gradients == 4 * plan.num_trained
        # Two moments of each, and two counters.
        assert plan.memory.optimizer_state == pytest.approx(8 * plan.num_trained, abs=16)
        assert plan.model_flops < whole.model_flops
        assert f"{plan.num_trained:,} of them trained" in format_plan(plan)


def test_a_model_that_does_not_divide_is_refused(experiment):
    config = with_options(experiment, feed_forward_dim=25)
    with pytest.raises(InputError, match=r"mesh.tensor must divide .*feed_forward/hidden"):
        plan_of(config, MeshConfig(data=1, tensor=2))


@pytest.fixture
def plan(experiment):
    return plan_of(experiment, MESHES[1])


def test_the_table_says_whether_it_fits(plan):
    assert plan.fits
    assert "fits: 0.0%" in format_plan(plan)
    small = plan._replace(device=H200._replace(memory_bytes=plan.memory.total - 1))
    assert not small.fits
    assert "DOES NOT FIT: 100.0%" in format_plan(small)


def test_the_table_says_what_its_figures_are_not(plan):
    text = " ".join(format_plan(plan).split())
    assert "XLA's backend for CPUs" in text
    assert "multiplies float32; the peak that was used is that of bfloat16" in text
    assert "rounds of 1 loops are not known" in " ".join(
        format_plan(plan._replace(unknown_loops=("while.3",))).split()
    )


def test_json_holds_the_numbers_of_the_table(plan):
    numbers = json.loads(json.dumps(plan_to_json(plan)))
    memory = numbers["memory_per_device"]
    assert memory["total"] == plan.memory.total
    assert numbers["flops"]["all_devices"] == 8 * plan.device_flops
    utilization = numbers["model_flops_utilization"]
    assert 0.0 < utilization["no_overlap"] <= utilization["perfect_overlap"] <= 1.0
    assert math.isclose(
        numbers["seconds"]["no_overlap"],
        sum(numbers["seconds"][part] for part in ("compute", "state_traffic", "communication")),
    )


def plan_of_file(name, mesh):
    """Return what the command prints for a config of the repository."""
    command = [sys.executable, "-m", "flax_transformer", "plan", "--json"]
    done = subprocess.run(
        [*command, "--config", f"configs/{name}.py", "--mesh", mesh],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.slow
def test_gpt3_on_512_devices_fits_and_computes_what_recomputation_adds():
    plan = plan_of_file("gpt3_175b", "data=1,fsdp=64,tensor=8")
    assert plan["device"] == H200.name
    assert plan["fits"]
    # Three times the weights of a part of eight in 16 bits are 131 GB; what is above are states.
    assert plan["collectives_per_device"]["all-gather"]["sent_bytes"] < 1e12
    assert 1.2 < plan["flops"]["all_devices"] / plan["flops"]["model"] < 1.3


@pytest.mark.slow
def test_the_big_model_of_wmt_on_8_devices_fits_and_gathers_nothing():
    plan = plan_of_file("wmt14_en_de_big", "data=8")
    assert plan["fits"]
    assert plan["collectives_per_device"]["all-gather"]["num_runs"] == 0
    assert 1.0 < plan["flops"]["all_devices"] / plan["flops"]["model"] < 1.1
