"""What may befall a training: steps that spoil it, evaluations that fail, signals, full disks."""

import itertools
import json
import logging
import os
import re
import shutil
import signal

import chex
import jax
import pytest
from tiny_checkpoints import small_disk
from tiny_training import PACKED, read_log, read_losses

from flax_transformer.checkpoints.reader import (
    DamagedCheckpointError,
    list_steps,
    restore_state,
)
from flax_transformer.data.batch import batch_pair_ids
from flax_transformer.data.pipeline import PipelineConfig, make_training_batches
from flax_transformer.errors import DivergenceError
from flax_transformer.run_layout import SKIPPED_FILE
from flax_transformer.training.loop import DEV_SCORE, Ending, Start
from flax_transformer.training.optimizer import OptimizerConfig


def read_skipped(workdir):
    return [json.loads(line) for line in (workdir / SKIPPED_FILE).read_text().splitlines()]


def read_dev_steps(workdir):
    return [entry["step"] for entry in read_log(workdir) if DEV_SCORE in entry]


def restore(workdir, step, like):
    return restore_state(workdir / "checkpoints" / str(step), like=like, batches=None)


def assert_trained_nothing(before, after):
    chex.assert_trees_all_equal(before.params, after.params)
    chex.assert_trees_all_equal(before.optimizer_state, after.optimizer_state)


def test_a_checkpoint_waits_for_an_update_that_is_made(tmp_path, run_training):
    options = {"checkpoint_every": 1, "eval_every": 3, "keep_last": 9}
    run_training(tmp_path, spoilt=[3], num_steps=5, **options)
    assert list_steps(tmp_path / "checkpoints") == [1, 2, 4, 5]


def test_a_step_that_is_not_finite_is_left_out_and_named(tmp_path, run_training, tiny_task, caplog):
    options = {"checkpoint_every": 1, "eval_every": 9, "keep_last": 9}
    run_training(tmp_path, spoilt=[3], num_steps=3, **options)
    state = run_training(tmp_path, num_steps=5, **options).result.state
    assert list_steps(tmp_path / "checkpoints") == [1, 2, 3, 4, 5]
    assert (int(state.guard.num_skipped), int(state.guard.num_skipped_in_a_row)) == (1, 0)
    states = {step: restore(tmp_path, step, like=state) for step in (2, 3, 4)}
    assert_trained_nothing(states[2], states[3])
    with pytest.raises(AssertionError):
        assert_trained_nothing(states[3], states[4])
    chex.assert_tree_all_finite(state)

    batches = make_training_batches(tiny_task.pairs, tiny_task.tokenizer, PACKED, seed=0)
    third = [next(batches) for _ in range(3)][-1]
    assert read_skipped(tmp_path) == [{"step": 3, "pairs": batch_pair_ids(third)}]
    lines = [entry for entry in read_log(tmp_path) if "loss" in entry]
    assert [entry.get("num_skipped", 0) for entry in lines] == [0, 0, 1, 1, 1]
    assert [step for step, loss in read_losses(tmp_path).items() if loss is None] == [3]
    assert "step 3: the loss is nan" in caplog.text


def test_many_such_steps_in_a_row_end_the_run(tmp_path, run_training):
    options = {"num_steps": 9, "checkpoint_every": 3, "eval_every": 9, "max_skipped_steps": 3}
    message = (
        r"the updates of 3 steps in a row were left out: the loss of step 7 is nan, its gradient "
        r"norm nan; the last checkpoint known to be good is step 3\. Try a lower "
        r"--optimizer\.learning-rate .*"
    )
    with pytest.raises(DivergenceError) as error:
        run_training(tmp_path / "broken", spoilt=[5, 6, 7], **options)
    assert re.fullmatch(message, str(error.value))
    assert list_steps(tmp_path / "broken" / "checkpoints") == [3]
    assert [line["step"] for line in read_skipped(tmp_path / "broken")] == [5, 6, 7]

    broken = run_training(tmp_path / "broken", **options)
    unbroken = run_training(tmp_path / "unbroken", **options)
    chex.assert_trees_all_equal(broken.result.state, unbroken.result.state)
    assert read_skipped(tmp_path / "broken") == []


def test_a_checkpoint_of_spoilt_parameters_is_not_called_good(tmp_path, run_training, capsys):
    ruinous = OptimizerConfig(learning_rate=1e30, warmup_steps=10)
    options = {"num_steps": 9, "checkpoint_every": 1, "max_skipped_steps": 3, "keep_last": 9}
    run_training(tmp_path, num_steps=2)
    with pytest.raises(DivergenceError, match=r"step 2 \(to go on .* delete those after it: 3\)\."):
        run_training(tmp_path, optimizer=ruinous, **options)
    assert list_steps(tmp_path / "checkpoints") == [2, 3]
    shutil.rmtree(tmp_path / "checkpoints" / "3")
    state = run_training(tmp_path, **options).result.state
    assert "resuming after step 2 of 9" in capsys.readouterr().out
    chex.assert_tree_all_finite(state)


def test_a_loss_that_rises_ends_the_run(tmp_path, run_training):
    too_high = OptimizerConfig(learning_rate=100.0, warmup_steps=100)
    options = {"num_steps": 90, "checkpoint_every": 10, "eval_every": 90, "optimizer": too_high}
    with pytest.raises(DivergenceError) as error:
        run_training(tmp_path, max_loss_rise=1.0, **options)
    message = (
        r"the loss has risen from ([\d.]+) to ([\d.]+) at step (\d+), by more than "
        r"training\.max_loss_rise; the last checkpoint known to be good is step (\d+)( .*)?\. "
        r"Try .*"
    )
    lowest, average, step, last_good, _ = re.fullmatch(message, str(error.value)).groups()
    assert float(average) > float(lowest) + 1.0
    steps = list_steps(tmp_path / "checkpoints")
    assert int(last_good) in steps
    assert steps[-1] <= int(step)


def test_a_loss_may_rise_where_that_is_allowed(tmp_path, run_training):
    too_high = OptimizerConfig(learning_rate=100.0, warmup_steps=100)
    options = {"num_steps": 40, "checkpoint_every": 40, "eval_every": 40, "optimizer": too_high}
    outcome = run_training(tmp_path, max_loss_rise=None, **options)
    assert outcome.result.ending is Ending.FINISHED


@pytest.mark.parametrize("part", ["evaluate", "export"])
def test_a_failed_evaluation_loses_nothing_and_is_made_up_for(tmp_path, run_training, part):
    def broken_scores():
        yield 7.0
        raise RuntimeError("no translation")

    exports = itertools.count(1)

    def broken_export(params):
        if next(exports) == 2:
            raise RuntimeError("no model")

    options = {"num_steps": 6, "eval_every": 2, "checkpoint_every": 9, "keep_last": 9}
    faults = {
        "evaluate": {"scores": broken_scores()},
        "export": {"scores": [7.0, 8.0], "export": broken_export},
    }
    with pytest.raises(RuntimeError, match=r"no translation|no model"):
        run_training(tmp_path / "broken", **faults[part], **options)
    assert list_steps(tmp_path / "broken" / "checkpoints") == [2, 4]
    assert read_dev_steps(tmp_path / "broken") == [2]

    broken = run_training(tmp_path / "broken", scores=[8.0, 9.0], **options)
    unbroken = run_training(tmp_path / "unbroken", scores=[7.0, 8.0, 9.0], **options)
    assert read_dev_steps(tmp_path / "broken") == [2, 4, 6]
    assert read_losses(tmp_path / "broken") == read_losses(tmp_path / "unbroken")
    chex.assert_trees_all_equal(broken.result.state, unbroken.result.state)
    chex.assert_trees_all_equal(broken.exported, unbroken.exported[1:])


def test_a_signal_in_the_last_evaluation_ends_the_run_after_it(tmp_path, run_training, capsys):
    def interrupted_scores():
        os.kill(os.getpid(), signal.SIGTERM)
        yield 7.0

    options = {"num_steps": 3, "eval_every": 3}
    outcome = run_training(tmp_path, scores=interrupted_scores(), **options)
    assert (outcome.result.ending, int(outcome.result.state.step)) == (Ending.INTERRUPTED, 3)
    assert "SIGTERM: saved step 3" in capsys.readouterr().out
    again = run_training(tmp_path, scores=[99.0], **options)
    assert (again.result.ending, again.exported) == (Ending.FINISHED, [])
    chex.assert_trees_all_equal(again.result.state, outcome.result.state)


def test_logs_on_a_full_disk_stop_nothing(tmp_path, run_training, caplog):
    with small_disk(tmp_path / "disk", "64k") as disk:
        (disk / "checkpoints").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
        (tmp_path / "elsewhere").mkdir()
        with pytest.raises(OSError, match="No space left"):
            (disk / "filler").write_bytes(bytes(2**20))
        outcome = run_training(disk, num_steps=3, log_examples=True)
    assert outcome.result.ending is Ending.FINISHED
    assert list_steps(tmp_path / "elsewhere") == [3]
    assert "metrics.jsonl is not complete" in caplog.text
    assert "examples.jsonl is not complete" in caplog.text


def test_one_kept_checkpoint_is_enough_to_resume(tmp_path, run_training):
    options = {"checkpoint_every": 2, "eval_every": 3, "keep_last": 1, "average_last": 1}
    unbroken = run_training(tmp_path / "unbroken", num_steps=7, **options)
    for num_steps in (4, 7):
        broken = run_training(tmp_path / "broken", num_steps=num_steps, **options)
    chex.assert_trees_all_equal(broken.result.state, unbroken.result.state)
    assert 7 in list_steps(tmp_path / "broken" / "checkpoints")


def test_a_strict_resume_stops_at_a_damaged_checkpoint(tmp_path, run_training, capsys):
    run_training(tmp_path, num_steps=4, checkpoint_every=2)
    (tmp_path / "checkpoints" / "4" / "state" / "_METADATA").write_bytes(b"{")
    with pytest.raises(DamagedCheckpointError, match=r"checkpoints/4 is damaged: state/_METADATA"):
        run_training(tmp_path, num_steps=6, start=Start(strict=True))
    run_training(tmp_path, num_steps=6)
    assert "resuming after step 2 of 6" in capsys.readouterr().out


def test_data_that_begin_anew_leave_the_state_as_it_is(tmp_path, run_training, tiny_task):
    before = run_training(tmp_path, num_steps=3).result.state
    after = run_training(tmp_path, num_steps=3, start=Start(restart_data=True))
    chex.assert_trees_all_equal(before, after.result.state)
    first = make_training_batches(tiny_task.pairs, tiny_task.tokenizer, PACKED, seed=0)
    chex.assert_trees_all_equal(next(after.batches), next(first))


@pytest.mark.slow
def test_a_step_is_compiled_once_for_each_shape_of_batches(
    tmp_path, run_training, tiny_task, caplog
):
    pipeline = PipelineConfig(
        batching="bucketed", batch_tokens=80, max_length=20, bucket_growth=1.5
    )
    batches = make_training_batches(tiny_task.pairs, tiny_task.tokenizer, pipeline, seed=0)
    shapes = [next(batches).source.shape for _ in range(32)]
    assert len(set(shapes[:16])) > 1

    def count_compilations(num_steps):
        caplog.clear()
        with caplog.at_level(logging.WARNING), jax.log_compiles():
            run_training(tmp_path, pipeline=pipeline, num_steps=num_steps, eval_every=99)
        messages = [record.getMessage() for record in caplog.records]
        return sum(bool(re.match(r"Compiling .*train_step", message)) for message in messages)

    assert count_compilations(16) == len(set(shapes[:16]))
    assert count_compilations(32) == len(set(shapes[16:]))  # a restored state is no other


def test_a_signal_while_updates_are_left_out_keeps_the_good_checkpoint(
    tmp_path, run_training, capsys
):
    options = {"checkpoint_every": 2, "eval_every": 4, "keep_last": 1, "average_last": 1}
    broken = run_training(
        tmp_path / "broken", spoilt=[3, 4, 5], signal_at=5, num_steps=7, **options
    )
    assert broken.result.ending is Ending.INTERRUPTED
    assert list_steps(tmp_path / "broken" / "checkpoints") == [2]
    message = "SIGTERM: the last updates were left out, so that nothing is saved since step 2"
    assert message in capsys.readouterr().out
    broken = run_training(tmp_path / "broken", scores=[3.0], num_steps=7, **options)
    unbroken = run_training(tmp_path / "unbroken", scores=[3.0], num_steps=7, **options)
    chex.assert_trees_all_equal(broken.result.state, unbroken.result.state)
    assert read_dev_steps(tmp_path / "broken") == read_dev_steps(tmp_path / "unbroken")


def test_a_score_that_was_measured_after_the_save_keeps_a_checkpoint(tmp_path, run_training):
    options = {"checkpoint_every": 99, "eval_every": 2, "keep_last": 1, "average_last": 1}
    run_training(tmp_path, scores=[30.0], signal_at=4, num_steps=12, **options)
    assert list_steps(tmp_path / "checkpoints") == [2, 4]
    run_training(
        tmp_path, scores=[90.0, 30.0], signal_at=3, num_steps=12, **options
    )  # step 4, then step 6
    assert list_steps(tmp_path / "checkpoints") == [4, 7]
    assert read_dev_steps(tmp_path) == [2, 4, 6]
    run_training(tmp_path, scores=[30.0] * 3, num_steps=12, **options)
    assert list_steps(tmp_path / "checkpoints") == [4, 12]


def test_data_that_begin_anew_forget_the_scores_on_the_old_ones(tmp_path, run_training):
    options = {"checkpoint_every": 99, "eval_every": 2, "keep_last": 1, "average_last": 1}
    early = run_training(tmp_path, scores=[60.0, 10.0], num_steps=9, patience=1, **options)
    assert early.result.ending is Ending.EARLY
    assert list_steps(tmp_path / "checkpoints") == [2, 4]
    other = {"scores": [20.0, 25.0], "start": Start(restart_data=True)}
    outcome = run_training(tmp_path, num_steps=8, patience=1, **other, **options)
    assert outcome.result.ending is Ending.FINISHED
    assert len(outcome.exported) == 2
    assert list_steps(tmp_path / "checkpoints") == [8]
    # What was forgotten stays so.
    run_training(tmp_path, scores=[22.0], num_steps=10, patience=1, **options)
    assert list_steps(tmp_path / "checkpoints") == [8, 10]
