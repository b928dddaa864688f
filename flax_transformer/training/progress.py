"""What the loop keeps track of between steps: throughput, and the best score so far."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping

import jax

from flax_transformer.training.step import StepMetrics

BEST_SCORE = "best_score"
NUM_SINCE_BEST = "evaluations_since_best"


class StepMeter:
    """Averages the metrics of the steps since the last report.

    Reading a step's metrics waits for that step. So each is read when the next one is already on
    its way, and the device is never idle for it.

    Args:
        check_step: is told every step's number, loss and norm of the gradient, and may raise.
    """

    def __init__(self, check_step: Callable[[int, float, float], None]) -> None:
        self._check_step = check_step
        self._unread: tuple[int, StepMetrics] | None = None
        self._gradient_norm = math.nan
        self._clear()

    def add(self, step: int, metrics: StepMetrics, *, padding: float) -> None:
        """Take the metrics of a step just begun, and read those of the step before it."""
        self.flush()
        self._unread = (step, metrics)
        self._paddings.append(padding)

    def flush(self) -> None:
        """Read what is unread; afterwards all steps are done and checked."""
        if self._unread is None:
            return
        step, metrics = self._unread
        self._unread = None
        loss, nll, num_tokens, gradient_norm = map(float, jax.device_get(metrics))
        self._check_step(step, loss, gradient_norm)
        self._loss_sum += loss * num_tokens
        self._nll_sum += nll * num_tokens
        self._num_tokens += num_tokens
        self._gradient_norm = gradient_norm

    def report(self) -> dict[str, float]:
        """Return means over all target tokens, the padding, and tokens a second; begin anew."""
        self.flush()
        num_tokens = max(self._num_tokens, 1.0)
        report = {
            "loss": self._loss_sum / num_tokens,
            "nll": self._nll_sum / num_tokens,
            "gradient_norm": self._gradient_norm,
            "tokens_per_second": self._num_tokens / (time.perf_counter() - self._start),
            "padding": sum(self._paddings) / max(len(self._paddings), 1),
        }
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
        if self.value == -math.inf:
            return {}
        return {BEST_SCORE: self.value, NUM_SINCE_BEST: float(self.num_since)}

    @classmethod
    def from_metrics(cls, metrics: Mapping[str, float]) -> "BestScore":
        """Go on from the metrics of a checkpoint.

        >>> BestScore.from_metrics(BestScore(30.0, 2).as_metrics()).num_since
        2
        """
        if BEST_SCORE not in metrics:
            return cls()
        return cls(metrics[BEST_SCORE], int(metrics[NUM_SINCE_BEST]))
