import math
import time

import numpy as np
import pytest

from flax_transformer.data.batch import Batch
from flax_transformer.training.divergence import StepOutcome
from flax_transformer.training.progress import BestScore, StepMeter
from flax_transformer.training.step import StepMetrics


def step_metrics(
    loss,
    nll,
    num_tokens,
    *,
    gradient_norm=1.0,
    num_skipped=0,
    num_skipped_in_a_row=0,
    loss_scale=1.0,
):
    values = (loss, nll, num_tokens, gradient_norm, num_skipped, num_skipped_in_a_row, loss_scale)
    return StepMetrics(*map(np.asarray, values))


def make_batch(*pair_ids):
    """Make a batch of one row; a pair of -1 is padding."""
    ids = np.array([pair_ids], np.int32)
    is_token = (ids >= 0).astype(np.int32)
    positions = np.array([[i - pair_ids.index(pair) for i, pair in enumerate(pair_ids)]])
    return Batch(is_token, is_token, positions, ids, ids, is_token, positions, ids)


BATCH = make_batch(3)


def check_nothing(outcome):
    """Take everything."""


def test_a_step_is_read_when_the_next_one_has_begun_and_checked_before_a_report():
    seen = []
    meter = StepMeter(seen.append)
    meter.add(1, step_metrics(2.0, 2.0, 3), make_batch(8, 5, 5, -1))
    assert seen == []
    meter.add(2, step_metrics(4.0, 4.0, 3, gradient_norm=7.0), make_batch(6, -1, -1, -1))
    assert seen == [StepOutcome(1, 2.0, 1.0, 0, 1.0, [5, 8])]
    assert meter.report()["padding"] == 0.5
    assert seen[1:] == [StepOutcome(2, 4.0, 7.0, 0, 1.0, [6])]


def test_means_are_over_tokens_not_over_steps():
    meter = StepMeter(check_nothing)
    meter.add(1, step_metrics(2.0, 1.5, 3), BATCH)
    meter.add(2, step_metrics(4.0, 3.5, 9, gradient_norm=7.0), BATCH)
    report = meter.report()
    assert report["loss"] == pytest.approx((2.0 * 3 + 4.0 * 9) / 12)
    assert report["nll"] == pytest.approx((1.5 * 3 + 3.5 * 9) / 12)
    assert report["gradient_norm"] == 7.0
    assert not {"num_skipped", "loss_scale"} & report.keys()


@pytest.mark.parametrize(("loss", "gradient_norm"), [(math.nan, math.nan), (5.0, math.inf)])
def test_a_step_that_was_left_out_is_counted_and_is_in_no_mean(loss, gradient_norm):
    seen = []
    meter = StepMeter(seen.append)
    meter.add(1, step_metrics(2.0, 1.5, 3), BATCH)
    skipped = step_metrics(
        loss, loss, 9, gradient_norm=gradient_norm, num_skipped=1, num_skipped_in_a_row=1
    )
    meter.add(2, skipped, BATCH)
    report = meter.report()
    assert (report["loss"], report["nll"], report["gradient_norm"]) == (2.0, 1.5, 1.0)
    assert report["num_skipped"] == 1
    assert [(outcome.is_finite, outcome.num_skipped_in_a_row) for outcome in seen] == [
        (True, 0),
        (False, 1),
    ]
    # It stays in the count, which is of the whole run.
    meter.add(3, step_metrics(2.0, 1.5, 3, num_skipped=1), BATCH)
    assert meter.report()["num_skipped"] == 1


def test_an_interval_without_any_update_reports_no_loss_as_if_it_were_one():
    meter = StepMeter(check_nothing)
    meter.add(1, step_metrics(math.nan, math.nan, 9, gradient_norm=math.nan), BATCH)
    report = meter.report()
    assert math.isnan(report["loss"])
    assert math.isnan(report["nll"])
    assert report["tokens_per_second"] == 0.0


def test_a_scale_of_the_loss_is_reported():
    meter = StepMeter(check_nothing)
    meter.add(1, step_metrics(2.0, 1.5, 3, loss_scale=1024.0), BATCH)
    assert meter.report()["loss_scale"] == 1024.0


def test_a_report_begins_anew_and_a_pause_is_not_counted():
    meter = StepMeter(check_nothing)
    meter.add(3, step_metrics(1.0, 1.0, 1_000_000), BATCH)
    assert meter.report()["loss"] == 1.0
    start = time.perf_counter()
    meter.add(4, step_metrics(2.0, 2.0, 50), BATCH)
    with meter.paused():
        time.sleep(0.2)
    report = meter.report()
    assert report["loss"] == 2.0
    assert report["tokens_per_second"] > 50 / (time.perf_counter() - start)


def test_a_step_of_padding_alone_adds_nothing():
    meter = StepMeter(check_nothing)
    meter.add(5, step_metrics(0.0, 0.0, 0), make_batch(-1))
    assert meter.report()["loss"] == 0.0
    meter.add(6, step_metrics(3.0, 3.0, 5), BATCH)
    assert meter.report()["loss"] == 3.0


def test_equal_scores_do_not_count_as_better():
    best = BestScore()
    assert [best.update(score) for score in (2.0, 2.0, 1.0)] == [True, False, False]
    assert (best.value, best.num_since) == (2.0, 2)


def test_a_checkpoint_remembers_the_best_score():
    best = BestScore()
    best.update(math.nan)
    resumed = BestScore.from_metrics(best.as_metrics())
    assert (resumed.value, resumed.num_since) == (-math.inf, 1)
    for score in (10.0, 30.0, math.nan, 20.0):
        best.update(score)
    resumed = BestScore.from_metrics({"loss": 1.0, **best.as_metrics()})
    assert (resumed.value, resumed.num_since) == (30.0, 2)
