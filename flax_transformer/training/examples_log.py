"""Which examples of the corpus each step has seen: sentence pairs, texts or pieces of text."""

import json
import logging
from pathlib import Path

import jax

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
        index = jax.process_index()
        paths = [
            (workdir / name) if index == 0 else (workdir / name).with_suffix(f".{index}.jsonl")
            for name in (EXAMPLES_FILE, SKIPPED_FILE)
        ]
        for path in paths:
            drop_later_lines(path, start_step)
        self._examples, self._skipped = map(AppendFile, paths)

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
                SKIPPED_FILE,
            )


def _encode(line: dict[str, object]) -> bytes:
    return json.dumps(line).encode() + b"\n"
