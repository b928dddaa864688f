import os
from unittest.mock import ANY

import grain
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_transformer.checkpoints.checkpointer import Checkpointer
from flax_transformer.config import ExperimentConfig, save_config
from flax_transformer.data.pipeline import PipelineConfig
from flax_transformer.interop.pretrained import load_pretrained
from flax_transformer.training.guard import LossScaleConfig, init_guard
from flax_transformer.training.state import TrainState

STEPS = (3, 5, 7)


@pytest.fixture(scope="module")
def finished_run(tiny_translator, tmp_path_factory):
    """A run whose checkpoints hold the tiny model's parameters plus their step."""
    model, params, tokenizer, _ = tiny_translator
    workdir = tmp_path_factory.mktemp("run")
    pipeline = PipelineConfig(max_length=model.config.max_positions)
    save_config(ExperimentConfig(model=model.config, pipeline=pipeline), workdir / "config.json")
    tokenizer.save(workdir / "tokenizer")
    batches = iter(grain.MapDataset.range(5).to_iter_dataset())
    with Checkpointer(
        workdir / "checkpoints", keep_last=3, keep_best=0, best_metric="dev_bleu"
    ) as checkpointer:
        for step in STEPS:
            state = TrainState(
                step=jnp.int32(step),
                params=jax.tree.map(lambda leaf, step=step: leaf + step, params),
                optimizer_state=(),
                dropout_key=jax.random.key_data(jax.random.key(0)),
                guard=init_guard(LossScaleConfig()),
            )
            checkpointer.save(state, batches, metrics={})
    return workdir


@pytest.mark.parametrize(("options", "offset"), [([], 5.0), (["--last", 2], 6.0)])
def test_the_last_checkpoints_are_averaged(
    run_main, finished_run, tiny_translator, options, offset
):
    status, output, errors = run_main("average", finished_run, *options)
    assert (status, errors) == (0, "")
    assert "step 3, step 5, step 7 into" in output or "averaged step 5, step 7 into" in output
    params = load_pretrained(finished_run).params
    for actual, original in zip(
        jax.tree.leaves(params), jax.tree.leaves(tiny_translator.params), strict=True
    ):
        np.testing.assert_allclose(actual, original + offset, atol=1e-5)


def test_another_directory_can_be_named(run_main, finished_run, tmp_path, monkeypatch):
    monkeypatch.chdir(finished_run.parent)
    output = os.path.relpath(tmp_path / "averaged")
    assert run_main("average", finished_run.name, "--output", output) == (0, ANY, "")
    assert run_main("average", finished_run, "--output", output)[0] == 0
    assert load_pretrained(output).config.max_positions == 61


def test_only_a_model_is_replaced(run_main, finished_run, tmp_path):
    (tmp_path / "letter").write_text("precious")
    for output in (tmp_path, tmp_path / "letter", finished_run):
        status, _, errors = run_main("average", finished_run, "--output", output)
        assert status == 1
        assert "must be new, empty or a model directory" in errors
    assert (tmp_path / "letter").read_text() == "precious"


def test_a_directory_without_a_run_is_refused(run_main, tmp_path):
    status, _, errors = run_main("average", tmp_path)
    assert status == 1
    assert "config.json must be a readable file" in errors


def test_a_run_without_checkpoints_is_refused(run_main, finished_run, tmp_path):
    (tmp_path / "config.json").write_bytes((finished_run / "config.json").read_bytes())
    status, _, errors = run_main("average", tmp_path)
    assert status == 1
    assert "checkpoints must hold at least one checkpoint, got none" in errors
