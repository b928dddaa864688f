import dataclasses
import json
import math
import re

import chex
import jax
import pytest
from tiny_experiment import make_tiny_experiment, write_corpus

from flax_transformer.data.pipeline import PipelineConfig, make_training_batches
from flax_transformer.data.sources import load_sentence_pairs
from flax_transformer.data.tokenizer import train_tokenizer
from flax_transformer.errors import DivergenceError, InputError
from flax_transformer.models.encoder_decoder import EncoderDecoder
from flax_transformer.run_layout import METRICS_FILE
from flax_transformer.training.checkpoint_reader import list_steps, restore_parameters
from flax_transformer.training.directory_lock import lock_directory
from flax_transformer.training.loop import DEV_SCORE, Ending, train
from flax_transformer.training.optimizer import OptimizerConfig, make_optimizer, make_schedule
from flax_transformer.training.sharding import MeshConfig, make_mesh

PACKED = PipelineConfig(batch_tokens=8 * 20, max_length=20)
# One bucket, so that batches have the shape of packed ones and nothing is compiled again.
BUCKETED = dataclasses.replace(PACKED, batching="bucketed", bucket_growth=99.0)

DIVERGING = OptimizerConfig(learning_rate=1e30, warmup_steps=10)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A config, its sentence pairs and their tokenizer."""
    directory = tmp_path_factory.mktemp("loop")
    write_corpus(directory / "tiny")
    config = make_tiny_experiment(directory)
    pairs = load_sentence_pairs(config.data, "train")
    tokenizer = train_tokenizer(config.tokenizer, pairs, seed=0)
    model = dataclasses.replace(
        config.model,
        source_vocab_size=tokenizer.source.vocab_size,
        target_vocab_size=tokenizer.target.vocab_size,
    )
    return dataclasses.replace(config, model=model), pairs, tokenizer


@pytest.fixture
def run_training(tiny):
    """Return a function that trains on one device: (result, batches, all that was exported)."""
    config, pairs, tokenizer = tiny

    def run_training(workdir, *, scores=None, pipeline=PACKED, optimizer=None, **changes):
        optimizer = optimizer or config.optimizer
        training = dataclasses.replace(config.training, log_every=1, **changes)
        batches = make_training_batches(pairs, tokenizer, pipeline, seed=training.seed)
        scores = iter(scores or [])
        exported = []
        result = train(
            EncoderDecoder(config.model),
            make_optimizer(optimizer, num_steps=training.num_steps),
            make_schedule(optimizer, num_steps=training.num_steps),
            batches,
            config=training,
            mesh=make_mesh(MeshConfig(), jax.devices()[:1]),
            workdir=workdir,
            evaluate=lambda params: {DEV_SCORE: next(scores, 0.0)},
            export_best=lambda params: exported.append(jax.device_get(params)),
        )
        return result, batches, exported

    return run_training


def read_log(workdir):
    return [json.loads(line) for line in (workdir / METRICS_FILE).read_text().splitlines()]


def read_losses(workdir):
    return {entry["step"]: entry["loss"] for entry in read_log(workdir) if "loss" in entry}


# An epoch has three or four batches, so each of these ends lies in another one. Dropout and
# subword regularisation are on.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("pipeline", "ends"), [(PACKED, [2, 5, 9]), (BUCKETED, [5, 9])], ids=["packed", "bucketed"]
)
def test_a_resumed_run_equals_an_unbroken_one(tmp_path, run_training, pipeline, ends):
    unbroken, batches, _ = run_training(tmp_path / "a", pipeline=pipeline, num_steps=ends[-1])
    for num_steps in ends:
        broken, other_batches, _ = run_training(
            tmp_path / "b", pipeline=pipeline, num_steps=num_steps
        )
    assert unbroken.ending == broken.ending == Ending.FINISHED
    chex.assert_trees_all_equal(unbroken.state, broken.state)
    assert read_losses(tmp_path / "a") == read_losses(tmp_path / "b")
    for _ in range(5):
        chex.assert_trees_all_equal(next(batches), next(other_batches))


def test_a_run_that_broke_off_repeats_what_was_not_saved(tmp_path, run_training, capsys):
    def broken_scores():
        yield 7.0
        raise RuntimeError("power cut")

    options = {"num_steps": 6, "eval_every": 2, "checkpoint_every": 9}
    with pytest.raises(RuntimeError, match="power cut"):
        run_training(tmp_path, scores=broken_scores(), **options)
    first_losses = read_losses(tmp_path)
    assert list(first_losses) == [1, 2, 3, 4]
    assert list_steps(tmp_path / "checkpoints") == [2]

    run_training(tmp_path, scores=[8.0, 9.0], **options)
    assert "resuming after step 2 of 6" in capsys.readouterr().out
    losses = read_losses(tmp_path)
    assert list(losses) == [1, 2, 3, 4, 5, 6]
    assert first_losses.items() <= losses.items()
    dev = [(entry["step"], entry[DEV_SCORE]) for entry in read_log(tmp_path) if DEV_SCORE in entry]
    assert dev == [(2, 7.0), (4, 8.0), (6, 9.0)]
    expected = {"step", "loss", "nll", "tokens_per_second", "learning_rate", "padding"}
    assert all(expected <= entry.keys() for entry in read_log(tmp_path) if "loss" in entry)


def test_stops_when_the_score_has_stopped_rising_and_keeps_the_best(tmp_path, run_training):
    options = {"num_steps": 9, "eval_every": 1, "patience": 2, "keep_last": 2}
    result, _, exported = run_training(tmp_path, scores=[1.0, 3.0, 2.0, math.nan, 5.0], **options)
    assert (result.ending, int(result.state.step)) == (Ending.EARLY, 4)
    assert list_steps(tmp_path / "checkpoints") == [2, 3, 4]
    assert len(exported) == 2
    best = restore_parameters(tmp_path / "checkpoints" / "2", like=exported[1])
    chex.assert_trees_all_equal(jax.device_get(best), exported[1])

    again, _, exported = run_training(tmp_path, scores=[99.0], **options)
    assert (again.ending, exported) == (Ending.EARLY, [])
    chex.assert_trees_all_equal(again.state, result.state)


def test_a_loss_that_is_not_finite_ends_the_run_and_is_not_saved(tmp_path, run_training):
    run_training(tmp_path, num_steps=2)
    with pytest.raises(DivergenceError) as error:
        run_training(tmp_path, num_steps=9, checkpoint_every=4, optimizer=DIVERGING)
    assert re.fullmatch(
        r"the loss of step 4 is nan, its gradient norm nan, at learning rate 4e\+29; the last good "
        r"checkpoint is step 2\. Try a lower --optimizer\.learning-rate .*",
        str(error.value),
    )
    assert list_steps(tmp_path / "checkpoints") == [2]

    with pytest.raises(InputError, match="optimizer_state") as refusal:
        run_training(tmp_path, num_steps=9, optimizer=OptimizerConfig(name="adafactor"))
    assert "\n" not in str(refusal.value)


def test_one_trainer_at_a_time(tmp_path, run_training):
    with (
        lock_directory(tmp_path / "checkpoints"),
        pytest.raises(InputError, match=r"checkpoints is in use by process \d+"),
    ):
        run_training(tmp_path, num_steps=2)


def test_checkpoints_and_evaluations_come_when_they_are_due(tmp_path, run_training):
    run_training(tmp_path, num_steps=7, checkpoint_every=3, eval_every=5, keep_last=9)
    assert list_steps(tmp_path / "checkpoints") == [3, 5, 6, 7]
    assert [line["step"] for line in read_log(tmp_path) if DEV_SCORE in line] == [5, 7]
