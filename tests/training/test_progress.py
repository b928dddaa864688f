import math
import time

import numpy as np
import pytest

from flax_transformer.training.progress import BestScore, StepMeter
from flax_transformer.training.step import StepMetrics


def step_metrics(loss, nll, num_tokens, gradient_norm=1.0):
    return StepMetrics(*(np.asarray(value) for value in (loss, nll, num_tokens, gradient_norm)))


def check_nothing(step, loss, gradient_norm):
    """Take everything."""


def test_a_step_is_read_when_the_next_one_has_begun_and_checked_before_a_report():
    seen = []
    meter = StepMeter(lambda step, loss, _: seen.append((step, loss)))
    meter.add(1, step_metrics(2.0, 2.0, 3), padding=0.25)
    assert seen == []
    meter.add(2, step_metrics(4.0, 4.0, 3), padding=0.75)
    assert seen == [(1, 2.0)]
    assert meter.report()["padding"] == 0.5
    assert seen == [(1, 2.0), (2, 4.0)]


def test_means_are_over_tokens_not_over_steps():
    meter = StepMeter(check_nothing)
    meter.add(1, step_metrics(2.0, 1.5, 3), padding=0.0)
    meter.add(2, step_metrics(4.0, 3.5, 9, gradient_norm=7.0), padding=0.0)
    report = meter.report()
    assert report["loss"] == pytest.approx((2.0 * 3 + 4.0 * 9) / 12)
    assert report["nll"] == pytest.approx((1.5 * 3 + 3.5 * 9) / 12)
    assert report["gradient_norm"] == 7.0


def test_a_report_begins_anew_and_a_pause_is_not_counted():
    meter = StepMeter(check_nothing)
    meter.add(3, step_metrics(1.0, 1.0, 1_000_000), padding=0.0)
    assert meter.report()["loss"] == 1.0
    start = time.perf_counter()
    meter.add(4, step_metrics(2.0, 2.0, 50), padding=0.0)
    with meter.paused():
        time.sleep(0.2)
    report = meter.report()
    assert report["loss"] == 2.0
    assert report["tokens_per_second"] > 50 / (time.perf_counter() - start)


def test_a_step_of_padding_alone_adds_nothing():
    meter = StepMeter(check_nothing)
    meter.add(5, step_metrics(0.0, 0.0, 0), padding=0.0)
    assert meter.report()["loss"] == 0.0
    meter.add(6, step_metrics(3.0, 3.0, 5), padding=0.0)
    assert meter.report()["loss"] == 3.0


def test_equal_scores_do_not_count_as_better():
    best = BestScore()
    assert [best.update(score) for score in (2.0, 2.0, 1.0)] == [True, False, False]
    assert (best.value, best.num_since) == (2.0, 2)


def test_a_checkpoint_remembers_the_best_score():
    best = BestScore()
    assert BestScore.from_metrics(best.as_metrics()).value == -math.inf
    for score in (10.0, 30.0, math.nan, 20.0):
        best.update(score)
    resumed = BestScore.from_metrics({"loss": 1.0, **best.as_metrics()})
    assert (resumed.value, resumed.num_since) == (30.0, 2)
