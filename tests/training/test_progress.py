import json
import math
import time

import numpy as np
import pytest

from flax_transformer.training.progress import BestScore, StepMeter
from flax_transformer.training.step import StepMetrics


def step_metrics(loss, nll, num_tokens, gradient_norm=1.0):
    return StepMetrics(*(np.asarray(value) for value in (loss, nll, num_tokens, gradient_norm)))


def check_nothing(step, loss):
    """Take every loss."""


def test_a_step_is_read_when_the_next_one_has_begun_and_checked_before_a_report():
    seen = []
    meter = StepMeter(lambda step, loss: seen.append((step, loss)))
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


def test_throughput_counts_from_the_reset():
    meter = StepMeter(check_nothing)
    meter.add(3, step_metrics(1.0, 1.0, 1_000_000), padding=0.0)
    meter.reset()
    start = time.perf_counter()
    time.sleep(0.01)
    meter.add(4, step_metrics(2.0, 2.0, 50), padding=0.0)
    rate = meter.report()["tokens_per_second"]
    assert 0.0 < rate <= 50 / 0.01
    assert rate >= 50 / (time.perf_counter() - start + 0.01)
    assert meter.report()["loss"] == 2.0


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


def test_the_log_is_replayed_up_to_the_last_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    entries = [
        {"step": 1, "loss": 5.0},
        {"step": 2, "dev": 10.0},
        {"step": 4, "dev": 30.0},
        {"step": 6, "dev": None},
        {"step": 8, "dev": 20.0},
        {"step": 10, "dev": 40.0},
    ]
    path.write_text("".join(f"{json.dumps(entry)}\n" for entry in entries) + '{"step": 12, "de')
    best = BestScore.from_log(path, "dev", last_step=8)
    assert (best.value, best.num_since) == (30.0, 2)
    assert BestScore.from_log(path, "dev", last_step=99).value == 40.0


def test_without_a_log_any_score_is_the_best(tmp_path):
    best = BestScore.from_log(tmp_path / "none.jsonl", "dev", last_step=9)
    assert best.value == -math.inf
    assert best.update(0.0)
