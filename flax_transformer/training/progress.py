"""What the loop keeps track of between steps: throughput, and the best score so far."""

import json
import math
import time
from collections.abc import Callable
from pathlib import Path

from flax_transformer.training.step import StepMetrics


class StepMeter:
    """Averages the metrics of the steps since the last report.

    Reading a step's metrics waits for that step. So each is read when the next one is already on
    its way, and the device is never idle for it.

    Args:
        check_loss: is told every step's number and loss, and may raise.
    """

    def __init__(self, check_loss: Callable[[int, float], None]) -> None:
        self._check_loss = check_loss
        self._unread: tuple[int, StepMetrics] | None = None
        self._loss_sum = self._nll_sum = 0.0
        self._num_tokens = 0
        self._gradient_norm = math.nan
        self._paddings: list[float] = []
        self._start = time.perf_counter()

    def reset(self) -> None:
        """Read what is unread, and begin anew; time counts from here."""
        self.flush()
        self._loss_sum = self._nll_sum = 0.0
        self._num_tokens = 0
        self._paddings = []
        self._start = time.perf_counter()

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
        loss, num_tokens = float(metrics.loss), int(metrics.num_tokens)
        self._check_loss(step, loss)
        self._loss_sum += loss * num_tokens
        self._nll_sum += float(metrics.nll) * num_tokens
        self._num_tokens += num_tokens
        self._gradient_norm = float(metrics.gradient_norm)

    def report(self) -> dict[str, float]:
        """Return means over all target tokens, the padding, and target tokens a second."""
        self.flush()
        num_tokens = max(self._num_tokens, 1)
        return {
            "loss": self._loss_sum / num_tokens,
            "nll": self._nll_sum / num_tokens,
            "gradient_norm": self._gradient_norm,
            "tokens_per_second": self._num_tokens / (time.perf_counter() - self._start),
            "padding": sum(self._paddings) / max(len(self._paddings), 1),
        }


class BestScore:
    """Remembers the best score and how many evaluations ago it was.

    Attributes:
        value: the best score; -inf before the first.
        num_since: evaluations since the best one.
    """

    def __init__(self) -> None:
        self.value = -math.inf
        self.num_since = 0

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

    @classmethod
    def from_log(cls, metrics_file: Path, name: str, *, last_step: int) -> "BestScore":
        """Replay the scores that a run logged up to ``last_step``."""
        best = cls()
        if metrics_file.exists():
            for line in metrics_file.read_text().splitlines():
                try:
                    entry = json.loads(line)
                except json.JSONDecodeError:  # the last line of a process that was killed
                    continue
                if name in entry and entry["step"] <= last_step:
                    best.update(math.nan if entry[name] is None else entry[name])
        return best
