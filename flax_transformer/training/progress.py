"""What the loop keeps track of between steps: throughput, and the best score so far."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping

import jax

from flax_transformer.data.batch import AnyBatch, batch_pair_ids, padding_fraction
from flax_transformer.training.divergence import StepOutcome
from flax_transformer.training.step import StepMetrics

BEST_SCORE = "best_score"
NUM_SINCE_BEST = "evaluations_since_best"


class StepMeter:
    """Averages the metrics of the steps since the last report.

    Reading a step's metrics waits for that step. So each is read when the next one is already on
    its way, and the device is never idle for it.

    Args:
        check_step: is told what came of every step, and may raise.

    Attributes:
        is_skipping: whether the update of the last step that was read was left out, and not for
            the scale of its loss.
    """

    def __init__(self, check_step: Callable[[StepOutcome], None]) -> None:
        self._check_step = check_step
        self._unread: tuple[int, StepMetrics, AnyBatch] | None = None
        self._gradient_norm = math.nan
        self._num_skipped = 0
        self.is_skipping = False
        self._loss_scale = 1.0
        self._clear()

    def add(self, step: int, metrics: StepMetrics, batch: AnyBatch) -> None:
        """Take the metrics of a step just begun, and read those of the step before it."""
        self.flush()
        self._unread = (step, metrics, batch)
        self._paddings.append(padding_fraction(batch))

    def flush(self) -> None:
        """Read what is unread; afterwards all steps are done and checked."""
        if self._unread is None:
            return
        step, unread, batch = self._unread
        self._unread = None
        metrics = jax.device_get(unread)
        outcome = StepOutcome(
            step=step,
            loss=float(metrics.loss),
            gradient_norm=float(metrics.gradient_norm),
            num_skipped_in_a_row=int(metrics.num_skipped_in_a_row),
            loss_scale=float(metrics.loss_scale),
            pair_ids=batch_pair_ids(batch),
        )
        self.is_skipping = not outcome.is_finite and outcome.loss_scale == 1.0
        self._check_step(outcome)
        self._num_skipped = int(metrics.num_skipped)
        self._loss_scale = outcome.loss_scale
        if outcome.is_finite:  # the others have trained nothing
            self._num_updates += 1
            num_tokens = float(metrics.num_tokens)
            self._loss_sum += outcome.loss * num_tokens
            self._nll_sum += float(metrics.nll) * num_tokens
            self._num_tokens += num_tokens
            self._gradient_norm = outcome.gradient_norm

    def report(self) -> dict[str, float]:
        """Return means over all target tokens, the padding, and tokens a second; begin anew.

        The padding is that of this process's rows, and the tokens a second of the first report are
        over the time of compiling, too. The means are over the updates that were made, NaN where
        there were none. With them go the updates left out since the start of the run, and the scale
        of the loss, where there are such.
        """
        self.flush()
        num_tokens = max(self._num_tokens, 1.0) if self._num_updates else math.nan
        report = {
            "loss": self._loss_sum / num_tokens,
            "nll": self._nll_sum / num_tokens,
            "gradient_norm": self._gradient_norm,
            "tokens_per_second": self._num_tokens / (time.perf_counter() - self._start),
            "padding": sum(self._paddings) / max(len(self._paddings), 1),
        }
        if self._num_skipped:
            report["num_skipped"] = self._num_skipped
        if self._loss_scale != 1.0:
            report["loss_scale"] = self._loss_scale
        self._clear()
        return report

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Finish the steps begun; what is done within does not count as time of training."""
        self.flush()
        pause = time.perf_counter()
        yield
        self._start += time.perf_counter() - pause

    def _clear(self) -> None:
        self._loss_sum = self._nll_sum = self._num_tokens = 0.0
        self._num_updates = 0
        self._paddings: list[float] = []
        self._start = time.perf_counter()


class BestScore:
    """Remembers the best score and how many evaluations ago it was.

    Attributes:
        value: the best score; -inf before the first.
        num_since: evaluations since the best one.
    """

    def __init__(self, value: float = -math.inf, num_since: int = 0) -> None:
        self.value = value
        self.num_since = num_since

    def update(self, score: float) -> bool:
        """Take a new score; tell whether it is the best. NaN never is.

        >>> best = BestScore()
        >>> [best.update(score) for score in (1.0, float("nan"), 3.0)], best.num_since
        ([True, False, True], 0)
        """
        if score > self.value:
            self.value, self.num_since = score, 0
            return True
        self.num_since += 1
        return False

    def as_metrics(self) -> dict[str, float]:
        """Return what :meth:`from_metrics` needs, to be stored with a checkpoint."""
        metrics = {NUM_SINCE_BEST: float(self.num_since)}
        return metrics if self.value == -math.inf else metrics | {BEST_SCORE: self.value}

    @classmethod
    def from_metrics(cls, metrics: Mapping[str, float]) -> "BestScore":
        """Go on from the metrics of a checkpoint.

        >>> BestScore.from_metrics(BestScore(30.0, 2).as_metrics()).num_since
        2
        """
        return cls(metrics.get(BEST_SCORE, -math.inf), int(metrics.get(NUM_SINCE_BEST, 0)))
