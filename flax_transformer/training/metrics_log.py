"""Report the metrics of a run: JSON lines, TensorBoard, and progress on standard error."""

import io
import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import jax
from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter
from tqdm import tqdm

from flax_transformer.run_layout import METRICS_FILE, TENSORBOARD_DIRECTORY
from flax_transformer.training.append_file import AppendFile
from flax_transformer.whole_file import write_file


class MetricsLog:
    """Writes ``metrics.jsonl`` and TensorBoard events, and shows progress and the time left.

    Each line of ``metrics.jsonl`` is a JSON object with ``step`` and the metrics; what is not
    finite is ``null``. On a terminal a bar shows the progress; elsewhere (a log file) each
    :meth:`write` prints a line. A log that cannot be written never stops the run.

    Of several processes only the first writes files.

    Args:
        workdir: the run's directory. Lines of an earlier attempt after `start_step` are dropped,
            since the run repeats those steps.
        num_steps: the step at which the run ends.
        start_step: steps already done.
        progress: whether to show progress.
    """

    def __init__(self, workdir: Path, *, num_steps: int, start_step: int, progress: bool):
        self._num_steps = num_steps
        self._progress = progress
        self._first: tuple[int, float] | None = None
        self._writes_files = jax.process_index() == 0
        if self._writes_files:
            drop_later_lines(workdir / METRICS_FILE, start_step)
        self._lines = AppendFile(workdir / METRICS_FILE)
        name = f"events.out.tfevents.{time.time_ns()}"
        self._events = AppendFile(workdir / TENSORBOARD_DIRECTORY / name)
        self._append_event(Event(file_version="brain.Event:2"))
        # Tells TensorBoard to forget the events of an earlier attempt from this step on.
        session = SessionLog(status=SessionLog.START)
        self._append_event(Event(step=start_step + 1, session_log=session))
        shown = progress and sys.stderr.isatty()
        self._bar = (
            tqdm(total=num_steps, initial=start_step, unit="step", dynamic_ncols=True, leave=True)
            if shown
            else None
        )

    def advance(self, step: int) -> None:
        """Note that `step` is done."""
        if self._first is None:  # the first step compiles: time starts after it
            self._first = (step, time.monotonic())
        if self._bar is not None:
            self._bar.update(step - self._bar.n)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of a step, such as ``loss``, ``tokens_per_second`` or ``dev_bleu``."""
        values = {name: float(value) for name, value in metrics.items()}
        line = {"step": step} | {n: v if math.isfinite(v) else None for n, v in values.items()}
        if self._writes_files:
            self._lines.append(json.dumps(line).encode() + b"\n")
        summary = Summary(
            value=[Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        )
        self._append_event(Event(step=step, summary=summary))
        self._show(step, values)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _show(self, step: int, metrics: Mapping[str, float]) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(format_metrics(metrics), refresh=True)
            if any(name.startswith("dev_") for name in metrics):  # worth more than a moment
                self._bar.write(f"step {step}  {format_metrics(metrics)}", file=sys.stderr)
        elif self._progress:
            parts = [f"step {step}/{self._num_steps}", format_metrics(metrics)]
            left = self._seconds_left(step)
            if left is not None:
                parts.append(f"{tqdm.format_interval(left)} left")
            print("  ".join(parts), file=sys.stderr, flush=True)

    def _seconds_left(self, step: int) -> float | None:
        if self._first is None or step <= self._first[0]:
            return None
        first_step, first_time = self._first
        seconds_per_step = (time.monotonic() - first_time) / (step - first_step)
        return seconds_per_step * max(self._num_steps - step, 0)

    def _append_event(self, event: Event) -> None:
        if not self._writes_files:
            return
        event.wall_time = time.time()
        framed = io.BytesIO()
        RecordWriter(framed).write(event.SerializeToString())
        self._events.append(framed.getvalue())


def drop_later_lines(path: Path, last_step: int) -> None:
    """Keep those lines of a metrics file that belong to steps up to `last_step`.

    Lines that are not metrics (the end of one cut short) are dropped too. The file is replaced in
    one move; a file that is missing or cannot be read or replaced is left as it is.
    """
    try:
        before = path.read_text(encoding="utf-8", errors="replace")
        lines = [(line, _read_step(line)) for line in before.splitlines()]
        kept = [line for line, step in lines if step is not None and step <= last_step]
        text = "".join(f"{line}\n" for line in kept)
        if text != before:
            write_file(path, text)
    except OSError:
        return


def format_metrics(metrics: Mapping[str, float]) -> str:
    """Format metrics for people, in the order given.

    >>> format_metrics({"loss": 3.2104, "tokens_per_second": 18213.4, "dev_bleu": 31.25})
    'loss 3.210  18,213 tokens/s  dev_bleu 31.25'
    """
    return "  ".join(_format_metric(name, value) for name, value in metrics.items())


def _format_metric(name: str, value: float) -> str:
    if name == "tokens_per_second":
        return f"{value:,.0f} tokens/s"
    return f"{name} {value:.3f}" if name.endswith("loss") else f"{name} {value:.4g}"


def _read_step(line: str) -> int | None:
    """The step of a line of metrics; None if it is not such a line."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return None
