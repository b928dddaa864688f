import math

import numpy as np
import pytest

from flax_transformer.errors import DivergenceError
from flax_transformer.training.divergence import DivergenceWatch, StepOutcome
from flax_transformer.training.training_config import TrainingConfig


def make_watch(**changes):
    return DivergenceWatch(TrainingConfig(**changes), "good until step {}".format)


def outcome(step, loss, *, gradient_norm=1.0, in_a_row=0):
    return StepOutcome(step, float(loss), gradient_norm, in_a_row, 1.0, [])


def check_all(watch, losses):
    """Return the number of the step that ends the run, None if none does."""
    for step, loss in enumerate(losses, 1):
        try:
            watch.check(outcome(step, loss))
        except DivergenceError:
            return step
    return None


@pytest.mark.parametrize("seed", range(10))
def test_noisy_losses_that_fall_never_end_a_run(seed):
    rng = np.random.default_rng(seed)
    steps = np.arange(3000)
    # Batches are of different difficulty: noise of half a nat, and now and then one much worse.
    losses = 2.0 + 8.0 * np.exp(-steps / 400) + 0.5 * rng.normal(size=steps.size)
    losses += 6.0 * (rng.random(steps.size) < 0.01)
    assert check_all(make_watch(max_loss_rise=3.0), losses) is None


@pytest.mark.parametrize(("rise", "ends"), [(1.0, False), (2.9, False), (3.2, True), (50.0, True)])
def test_a_rise_that_lasts_ends_a_run_if_it_is_too_high(rise, ends):
    losses = [4.0] * 100 + [4.0 + rise] * 200
    step = check_all(make_watch(max_loss_rise=3.0), losses)
    assert (step is not None) == ends
    if step is not None:
        assert step > 100


def test_the_rise_is_from_the_lowest_average_not_from_the_first_loss():
    losses = [*np.linspace(11.0, 2.0, 200), *np.linspace(2.0, 9.0, 200)]
    assert 200 < check_all(make_watch(max_loss_rise=3.0), losses) < 400


def test_a_larger_rise_is_noticed_sooner():
    steps = [
        check_all(make_watch(max_loss_rise=3.0), [4.0] * 50 + [4.0 + rise] * 200)
        for rise in (4.0, 10.0, 100.0)
    ]
    assert steps == sorted(steps, reverse=True)
    assert steps[-1] == 51


def test_the_message_says_how_far_it_rose_and_what_to_do():
    watch = make_watch(max_loss_rise=1.5)
    for step in range(1, 31):
        watch.check(outcome(step, 4.0))
    with pytest.raises(DivergenceError) as raised:
        watch.check(outcome(31, 1000.0))
    assert str(raised.value) == (
        "the loss has risen from 4.000 to 53.800 at step 31, by more than training.max_loss_rise; "
        "good until step 20"  # the first step of the lowest average
    )


def test_none_never_ends_a_run():
    losses = [1.0] * 50 + [1e30] * 100
    assert check_all(make_watch(max_loss_rise=None), losses) is None


def test_steps_that_were_left_out_do_not_count_as_losses():
    watch = make_watch(max_loss_rise=3.0, max_skipped_steps=2)
    for step in range(1, 200, 3):
        watch.check(outcome(step, 4.0))
        watch.check(outcome(step + 1, math.nan, gradient_norm=math.nan, in_a_row=1))
        watch.check(outcome(step + 2, 1e9, gradient_norm=math.inf, in_a_row=1))
    assert (watch.as_metrics()["num_losses_averaged"], watch.as_metrics()["loss_average"]) == (
        len(range(1, 200, 3)),
        pytest.approx(4.0),
    )


@pytest.mark.parametrize("max_loss_rise", [None, 3.0])
def test_updates_left_out_in_a_row_end_a_run(max_loss_rise):
    watch = make_watch(max_skipped_steps=3, max_loss_rise=max_loss_rise)
    for step, in_a_row in ((3, 1), (4, 2), (6, 1), (7, 2)):
        if step == 6:
            watch.check(outcome(5, 2.5))
        watch.check(outcome(step, math.nan, gradient_norm=math.nan, in_a_row=in_a_row))
    # Step 5 made the last update, which may have spoilt what steps 6 to 8 could not repair.
    with pytest.raises(DivergenceError) as raised:
        watch.check(outcome(8, 2.5, gradient_norm=math.inf, in_a_row=3))
    assert str(raised.value) == (
        "the updates of 3 steps in a row were left out: the loss of step 8 is 2.5, its gradient "
        "norm inf; good until step 4"
    )


def test_a_run_that_goes_on_remembers_what_it_watched():
    losses = [3.0 - 0.05 * step for step in range(30)] + [4.5] * 60
    unbroken = check_all(make_watch(max_loss_rise=1.0), losses)
    broken = make_watch(max_loss_rise=1.0)
    assert check_all(broken, losses[:31]) is None
    resumed = DivergenceWatch(
        TrainingConfig(max_loss_rise=1.0),
        "good until step {}".format,
        start_step=31,
        metrics=broken.as_metrics(),
    )
    assert check_all(resumed, losses[31:]) + 31 == unbroken
