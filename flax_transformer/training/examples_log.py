"""Which examples of the corpus each step has seen: sentence pairs, texts or pieces of text."""

import itertools
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import jax

from flax_transformer.parallel.processes import is_first_process
from flax_transformer.run_layout import EXAMPLES_FILE, SKIPPED_FILE
from flax_transformer.training.append_file import AppendFile
from flax_transformer.training.divergence import StepOutcome
from flax_transformer.training.metrics_log import drop_later_lines

_logger = logging.getLogger(__name__)


class ExamplesLog:
    """Writes the examples of steps whose update was left out, and on demand those of every step.

    A line of ``skipped.jsonl`` or ``examples.jsonl`` is a JSON object with ``step`` and ``pairs``,
    indices in the training corpus from 0. Each process writes those of its own rows: all but the
    first one to files with its number in the name.

    Args:
        workdir: the run's directory. Lines after `start_step` are dropped: the run repeats those
            steps.
        start_step: steps already done.
        every_step: whether to write those of every step.
    """

    def __init__(self, workdir: Path, *, start_step: int, every_step: bool) -> None:
        self._every_step = every_step
        examples, self._skipped_path = _name_files(workdir, jax.process_index())
        drop_later_lines(examples, start_step)
        drop_later_lines(self._skipped_path, start_step)
        if is_first_process():
            for path in _find_files_of_former_processes(workdir):
                drop_later_lines(path, start_step)
        self._examples, self._skipped = AppendFile(examples), AppendFile(self._skipped_path)

    def write(self, outcome: StepOutcome) -> None:
        """Log a step's examples."""
        line = {"step": outcome.step, "pairs": list(outcome.pair_ids)}
        if self._every_step:
            self._examples.append(_encode(line))
        # Where the loss is scaled, a gradient too large is a matter of course.
        if not outcome.is_finite and outcome.loss_scale == 1.0:
            self._skipped.append(_encode(line))
            _logger.warning(
                "step %d: the loss is %g, its gradient norm %g; the update is left out and its %d "
                "examples are named in %s",
                outcome.step,
                outcome.loss,
                outcome.gradient_norm,
                len(outcome.pair_ids),
                self._skipped_path.name,
            )


def _name_files(workdir: Path, process: int) -> tuple[Path, Path]:
    """Return the paths of a process's examples, and of those of updates that were left out."""
    examples, skipped = workdir / EXAMPLES_FILE, workdir / SKIPPED_FILE
    if process == 0:
        return examples, skipped
    return examples.with_suffix(f".{process}.jsonl"), skipped.with_suffix(f".{process}.jsonl")


def _find_files_of_former_processes(workdir: Path) -> Iterator[Path]:
    """Find the files of processes with numbers that this run, of fewer ones, does not have."""
    for process in itertools.count(jax.process_count()):
        paths = [path for path in _name_files(workdir, process) if path.exists()]
        if not paths:
            return
        yield from paths


def _encode(line: dict[str, object]) -> bytes:
    return json.dumps(line).encode() + b"\n"
