import dataclasses
import functools
import json
import shutil
from pathlib import Path

import chex
import jax
import numpy as np
import pytest
from tiny_experiment import make_tiny_experiment, write_corpus
from tiny_translator import make_tiny_translator

from flax_transformer.checkpoints.checkpointer import Checkpointer
from flax_transformer.checkpoints.directory_lock import lock_directory
from flax_transformer.checkpoints.reader import list_steps
from flax_transformer.config import save_config
from flax_transformer.data.pipeline import make_training_batches
from flax_transformer.errors import InputError
from flax_transformer.experiment.run import run_experiment
from flax_transformer.interop.pretrained import Pretrained, load_pretrained, save_model
from flax_transformer.nn.block_sparse_pattern import BlockSparseConfig
from flax_transformer.run_layout import RESULTS_FILE
from flax_transformer.training.guard import init_guard
from flax_transformer.training.loop import DEV_SCORE
from flax_transformer.training.optimizer import make_optimizer
from flax_transformer.training.state import TrainState


def replace(config, section, **changes):
    changed = dataclasses.replace(getattr(config, section), **changes)
    return dataclasses.replace(config, **{section: changed})


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")
    write_corpus(directory / "tiny")
    config = make_tiny_experiment(directory)
    return replace(config, "training", num_steps=4, checkpoint_every=1, eval_every=2, log_every=1)


@pytest.fixture(scope="module")
def workdir(config, tmp_path_factory):
    """The work directory of a finished run."""
    workdir = tmp_path_factory.mktemp("runs") / "finished"
    assert run_experiment(config, workdir)
    return workdir


def read_files(workdir):
    return {
        path: path.read_bytes()
        for path in workdir.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def read_results(workdir):
    return json.loads((workdir / RESULTS_FILE).read_text())


def read_metrics(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_a_run_leaves_its_log_its_model_and_its_scores(workdir):
    entries = read_metrics(workdir)
    losses = [entry for entry in entries if "loss" in entry]
    assert [entry["step"] for entry in losses] == [1, 2, 3, 4]
    assert all(entry["tokens_per_second"] > 0 for entry in losses)
    evaluations = [entry for entry in entries if "dev_bleu" in entry]
    assert [entry["step"] for entry in evaluations] == [2, 4]
    results = read_results(workdir)
    assert {"seed", "dev_bleu", "test_bleu", "test_chrf", "test_ter"} <= results.keys()
    assert "nrefs:1" in results["signatures"]["bleu"]
    pretrained = load_pretrained(workdir)
    assert pretrained.config.source_vocab_size == pretrained.tokenizer.source.vocab_size
    assert list_steps(workdir / "checkpoints")[-1] == 4


def test_a_second_run_says_that_it_resumes_and_changes_nothing(config, workdir, capsys):
    results = read_results(workdir)
    params = load_pretrained(workdir).params
    assert run_experiment(config, workdir)
    output = capsys.readouterr().out
    assert "resuming after step 4 of 4" in output
    assert "test BLEU" in output
    assert read_results(workdir) == results
    chex.assert_trees_all_equal(load_pretrained(workdir).params, params)


def test_what_is_lost_beside_the_checkpoints_comes_back_from_them(config, workdir, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    (copy / "config.json").unlink()
    shutil.rmtree(copy / "tokenizer")
    assert run_experiment(config, copy)
    for name in ("config.json", "tokenizer/shared.model"):
        assert (copy / name).read_bytes() == (workdir / name).read_bytes()


def test_files_of_a_damaged_checkpoint_replace_nothing(config, workdir, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    packed = copy / "checkpoints" / "4" / "files" / "metadata"
    content = packed.read_bytes()
    middle = content.index(b"shared.model") + 500
    packed.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
    assert run_experiment(config, copy)
    assert "resuming after step 3 of 4" in capsys.readouterr().out
    for name in ("config.json", "tokenizer/shared.model"):
        assert (copy / name).read_bytes() == (workdir / name).read_bytes()


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("model", {"num_heads": 4}, r"model\.num_heads must stay 2 in .*, got 4"),
        ("tokenizer", {"vocab_size": 270}, r"tokenizer\.vocab_size must stay 281 .*, got 270"),
        ("data", {"train": "dev"}, r"data\.train must stay 'train' .*, got 'dev'"),
        ("pipeline", {"max_length": 19}, r"pipeline\.max_length must stay 20 .*, got 19"),
        ("pipeline", {"batch_tokens": 320}, r"pipeline\.batch_tokens must stay 160 .*, got 320"),
        ("training", {"seed": 7}, r"training\.seed must stay 0 in .*, got 7"),
    ],
)
def test_another_run_in_the_same_directory_is_refused(config, workdir, section, changes, message):
    files = read_files(workdir)
    with pytest.raises(InputError, match=message):
        run_experiment(replace(config, section, **changes), workdir)
    assert read_files(workdir) == files


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("model", {"num_heads": 4}, r"model\.num_heads must stay 2"),
        ("tokenizer", {"vocab_size": 270}, r"tokenizer\.vocab_size must stay 281"),
    ],
)
def test_other_data_allow_no_other_model(config, workdir, section, changes, message):
    files = read_files(workdir)
    with pytest.raises(InputError, match=message):
        run_experiment(replace(config, section, **changes), workdir, restart_data=True)
    assert read_files(workdir) == files


@pytest.fixture(scope="module")
def other_data(tmp_path_factory):
    """A directory with a corpus of the same name, whose training pairs are in another order."""
    directory = tmp_path_factory.mktemp("other")
    write_corpus(directory / "tiny")
    for path in (directory / "tiny").glob("train.*"):
        path.write_text("".join(reversed(path.read_text().splitlines(keepends=True))))
    return directory


def test_other_data_are_taken_on_demand_only(config, workdir, other_data, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(workdir, copy)
    changed = replace(config, "data", data_dir=str(other_data))
    changed = replace(changed, "training", num_steps=5, eval_every=5)
    with pytest.raises(InputError, match=r"pairs must be the same .* --restart-data\.") as refusal:
        run_experiment(changed, copy)
    assert "\n" not in str(refusal.value)
    assert list_steps(copy / "checkpoints") == list_steps(workdir / "checkpoints")

    changed = replace(changed, "training", seed=7)
    assert run_experiment(changed, copy, restart_data=True)
    assert "resuming after step 4 of 5" in capsys.readouterr().out
    assert list_steps(copy / "checkpoints")[-1] == 5
    # From now on these are the data of the run.
    assert run_experiment(changed, copy)


def test_a_run_starts_from_the_parameters_of_another(config, workdir, tmp_path, capsys):
    source = load_pretrained(workdir)
    changed = replace(config, "training", num_steps=1, seed=7)
    # Steps too small to change a parameter.
    changed = replace(changed, "optimizer", name="adafactor", learning_rate=1e-30)
    assert run_experiment(changed, tmp_path / "run", init_from=workdir)
    assert "resuming" not in capsys.readouterr().out
    assert read_metrics(tmp_path / "run")[0]["step"] == 1
    result = load_pretrained(tmp_path / "run")
    chex.assert_trees_all_equal(result.params, source.params)
    assert result.tokenizer.source.model == source.tokenizer.source.model


def test_parameters_of_another_model_are_refused(config, workdir, tmp_path):
    wider = replace(config, "model", feed_forward_dim=32)
    message = r"must fit the config's model, but .*feed_forward/hidden/bias.*\(24,\).*\(32,\)"
    with pytest.raises(InputError, match=message) as refusal:
        run_experiment(wider, tmp_path / "run", init_from=workdir)
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_second_trainer_in_the_same_directory_is_refused(config, workdir):
    files = read_files(workdir)
    with (
        lock_directory(workdir),
        pytest.raises(InputError, match=r"is in use by process \d+ on host .+\. Wait for its end"),
    ):
        run_experiment(replace(config, "training", num_steps=9), workdir)
    assert read_files(workdir) == files


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        ("tokenizer", {"vocab_size": 5000}, r"vocab_size must be at most \d+ .*, got 5000"),
        ("data", {"train": "trian"}, r"trian"),
        ("data", {"data_dir": "/nowhere"}, r"dataset must be a folder below data_dir"),
        ("mesh", {"data": 3}, "must multiply to the 8 devices"),
        ("pipeline", {"batch_tokens": 30}, "batch_tokens"),
    ],
)
def test_what_cannot_work_is_one_line_and_can_be_mended(
    config, tmp_path, section, changes, message
):
    with pytest.raises(InputError, match=message) as error:
        run_experiment(replace(config, section, **changes), tmp_path / "run")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "config.json").exists()


@functools.cache
def _translator():
    return make_tiny_translator()


def make_finished_run(directory, *, best, checkpoints, test_targets=None):
    """Store a run that is done, but for the choice of its final parameters.

    ``best`` is what it exported and ``checkpoints`` what it saved, each as the scale of a change
    to parameters that translate well.
    """
    model, params, tokenizer, pairs = _translator()
    noise = jax.tree.map(
        lambda leaf: np.random.default_rng(0).normal(size=leaf.shape).astype(np.float32), params
    )

    def changed(scale):
        return jax.tree.map(lambda leaf, change: leaf + scale * change, params, noise)

    data = directory / "tiny"
    data.mkdir(parents=True)
    for stem in ("train", "dev", "test"):
        targets = [pair.target for pair in pairs]
        if stem == "test" and test_targets is not None:
            targets = test_targets
        (data / f"{stem}.en").write_text("".join(f"{pair.source}\n" for pair in pairs))
        (data / f"{stem}.xx").write_text("".join(f"{target}\n" for target in targets))
    config = make_tiny_experiment(directory)
    config = dataclasses.replace(config, model=model.config)
    config = replace(config, "tokenizer", vocab_size=model.config.source_vocab_size)
    config = replace(config, "pipeline", max_length=40, batch_tokens=8 * 40)
    config = replace(config, "evaluation", dev_beam_size=1, test_beam_size=1)
    config = replace(config, "training", num_steps=len(checkpoints), average_last=2)
    workdir = directory / "run"
    workdir.mkdir()
    save_config(config, workdir / "config.json")
    tokenizer.save(workdir / "tokenizer")
    save_model(workdir / "model", Pretrained(model, changed(best), model.config, tokenizer))
    optimizer = make_optimizer(config.optimizer, num_steps=len(checkpoints))
    batches = make_training_batches(pairs, tokenizer, config.pipeline, seed=0, row_multiple=8)
    guard = init_guard(config.training.loss_scale)
    with Checkpointer(
        workdir / "checkpoints", keep_last=9, keep_best=0, best_metric=DEV_SCORE
    ) as checkpointer:
        for step, scale in enumerate(checkpoints, 1):
            state = TrainState(
                step=np.int32(step),
                params=changed(scale),
                optimizer_state=optimizer.init(params),
                dropout_key=jax.random.key_data(jax.random.key(0)),
                guard=guard,
            )
            checkpointer.save(state, batches, metrics={DEV_SCORE: 0.0})
    return config, workdir


# Opposite changes cancel in the average; equal ones do not.
@pytest.mark.parametrize(
    ("best", "checkpoints", "is_average"),
    [(1.0, [1.0, -1.0], True), (0.0, [1.0, 1.0], False)],
)
def test_the_average_is_used_if_it_is_better_on_dev(
    tmp_path, monkeypatch, best, checkpoints, is_average
):
    config, workdir = make_finished_run(tmp_path, best=best, checkpoints=checkpoints)
    before = load_pretrained(workdir).params
    monkeypatch.chdir(workdir.parent)
    assert run_experiment(config, Path(workdir.name))
    after = load_pretrained(workdir).params
    if is_average:
        chex.assert_trees_all_close(after, _translator().params, atol=1e-5)
    else:
        chex.assert_trees_all_equal(after, before)
    assert read_results(workdir)["dev_bleu"] > 50


def test_the_test_set_chooses_nothing(tmp_path):
    nonsense = ["x"] * len(_translator().pairs)
    config, workdir = make_finished_run(
        tmp_path, best=1.0, checkpoints=[1.0, -1.0], test_targets=nonsense
    )
    assert run_experiment(config, workdir)
    chex.assert_trees_all_close(load_pretrained(workdir).params, _translator().params, atol=1e-5)
    results = read_results(workdir)
    assert results["test_bleu"] < 1 < results["dev_bleu"]


def test_a_sparse_encoder_reads_rows_of_one_text(config, tmp_path):
    sparsity = {"encoder_sparsity": BlockSparseConfig(block_size=4)}
    sparse = dataclasses.replace(config, model=dataclasses.replace(config.model, **sparsity))
    with pytest.raises(InputError, match=r"batching must be bucketed with .*sparsity.* got packed"):
        run_experiment(sparse, tmp_path / "run")
    assert not (tmp_path / "run").exists()
