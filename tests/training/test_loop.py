import math

import chex
import jax
import pytest
from tiny_training import BUCKETED, PACKED, read_log, read_losses

from flax_transformer.checkpoints.directory_lock import lock_directory
from flax_transformer.checkpoints.reader import list_steps, restore_parameters
from flax_transformer.errors import InputError
from flax_transformer.training.loop import DEV_SCORE, Ending
from flax_transformer.training.optimizer import OptimizerConfig


def read_scores(workdir):
    return {entry["step"]: entry[DEV_SCORE] for entry in read_log(workdir) if DEV_SCORE in entry}


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
    class PowerCut(BaseException):
        pass

    def broken_scores():
        yield 7.0
        raise PowerCut

    options = {"num_steps": 6, "eval_every": 2, "checkpoint_every": 9}
    with pytest.raises(PowerCut):
        run_training(tmp_path, scores=broken_scores(), **options)
    first_losses = read_losses(tmp_path)
    assert list(first_losses) == [1, 2, 3, 4]
    assert list_steps(tmp_path / "checkpoints") == [2]

    run_training(tmp_path, scores=[8.0, 9.0], **options)
    assert "resuming after step 2 of 6" in capsys.readouterr().out
    losses = read_losses(tmp_path)
    assert list(losses) == [1, 2, 3, 4, 5, 6]
    assert first_losses.items() <= losses.items()
    assert read_scores(tmp_path) == {2: 7.0, 4: 8.0, 6: 9.0}
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


def test_the_state_of_another_optimizer_is_refused(tmp_path, run_training):
    run_training(tmp_path, num_steps=2)
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
    assert list(read_scores(tmp_path)) == [5, 7]
