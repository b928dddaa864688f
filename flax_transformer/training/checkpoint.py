"""Write the checkpoints of a run in the background, and resume from them."""

import errno
import logging
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grain
import grain.checkpoint
import jax
import orbax.checkpoint as ocp

from flax_transformer.errors import InputError
from flax_transformer.training import checkpoint_reader
from flax_transformer.training.attachments import Attachments
from flax_transformer.training.checkpoint_reader import DamagedCheckpointError
from flax_transformer.training.directory_lock import lock_directory
from flax_transformer.training.manifest import write_manifest
from flax_transformer.training.retention import steps_to_keep

_logger = logging.getLogger(__name__)


class Checkpointer:
    """Saves training states asynchronously; keeps the last ones and the best ones.

    A checkpoint holds the whole state, the position in the data and the metrics of its step. It
    appears under its final name only when it is complete, so a process may be killed at any moment
    without harm to what was saved before. Older checkpoints are deleted after a newer one is
    complete. One process (or one group of processes) at a time may write to a directory; to read
    a run that may still be training use :mod:`flax_transformer.training.checkpoint_reader`.

    Use it as a context manager: leaving it waits for the save in flight.

    Args:
        directory: made if missing; what an interrupted save left there is removed.
        keep_last: number of latest checkpoints to keep.
        keep_best: number of checkpoints with the highest `best_metric` to keep besides. A missing
            or NaN score never displaces a checkpoint that has one.
        best_metric: name of the metric that ranks the checkpoints.
        attachments: files that every checkpoint carries.

    Raises:
        InputError: the directory cannot be written to, or another process writes to it.
    """

    def __init__(
        self,
        directory: Path,
        *,
        keep_last: int,
        keep_best: int,
        best_metric: str,
        attachments: Attachments | None = None,
    ):
        if keep_last < 1:
            raise InputError(f"keep_last must be at least 1, got {keep_last}.")
        if keep_best < 0:
            raise InputError(f"keep_best must be at least 0, got {keep_best}.")
        self._directory = directory.absolute()
        self._keep_last = keep_last
        self._keep_best = keep_best
        self._best_metric = best_metric
        self._attachments = dict(attachments or {})
        self._lock = lock_directory(self._directory) if jax.process_index() == 0 else None
        self._scores = {step: self.metrics(step).get(best_metric) for step in self.steps()}
        self._last_saved: int | None = None
        logging.getLogger("absl").addFilter(_is_not_orbax_traceback)
        self._manager = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                cleanup_tmp_directories=True,
                preservation_policy=self,
                async_options=ocp.options.AsyncOptions(
                    post_finalization_callback=self._write_manifest
                ),
            ),
        )

    def save(
        self, state: Any, batches: grain.DatasetIterator, *, metrics: Mapping[str, float]
    ) -> None:
        """Copy the state and start writing it; return before it is written.

        The step is ``int(state.step)``. A step that is already saved is left as it is, so evaluate
        a step before saving it. The caller may donate `state` and advance `batches` at once.

        Raises:
            InputError: this save, or the one before it, failed (say, no space is left); or a later
                step is already there.
        """
        self.wait()
        step = int(state.step)
        steps = self.steps()
        if step in steps:
            return
        if steps and step < steps[-1]:
            raise InputError(
                f"step {step} must come after the steps in {self._directory}, got one before "
                f"{steps[-1]}. Resume from the latest checkpoint, or use another work directory."
            )
        self._scores[step] = metrics.get(self._best_metric)
        self._last_saved = step
        items = {
            checkpoint_reader.STATE_ITEM: ocp.args.PyTreeSave(state),
            checkpoint_reader.BATCHES_ITEM: grain.checkpoint.CheckpointSave(batches),
            checkpoint_reader.METRICS_ITEM: ocp.args.JsonSave(
                {name: float(v) if math.isfinite(v) else None for name, v in metrics.items()}
            ),
            checkpoint_reader.ATTACHMENTS_ITEM: ocp.args.JsonSave(self._attachments),
        }
        try:
            self._manager.save(step, args=ocp.args.Composite(**items), force=True)
        except Exception as error:  # the file system's errors have no common class here
            raise self._save_error(error) from error

    def wait(self) -> None:
        """Wait until the last save is complete.

        Raises:
            InputError: it failed; the checkpoints before it are intact.
        """
        try:
            self._manager.wait_until_finished()
        except Exception as error:  # as above
            raise self._save_error(error) from error

    def steps(self) -> list[int]:
        """List the complete checkpoints, in rising order."""
        return checkpoint_reader.list_steps(self._directory)

    def latest_step(self) -> int | None:
        """Return the latest complete checkpoint, or None."""
        return max(self.steps(), default=None)

    def metrics(self, step: int) -> dict[str, float]:
        """Return the metrics saved with a checkpoint; empty if there are none."""
        return checkpoint_reader.read_metrics(self._directory / str(step))

    def restore(self, step: int, *, like: Any, batches: grain.DatasetIterator) -> Any:
        """Restore the state of one step; see :func:`.checkpoint_reader.restore_state`."""
        self.wait()
        return checkpoint_reader.restore_state(
            self._directory / str(step), like=like, batches=batches
        )

    def restore_latest(self, *, like: Any, batches: grain.DatasetIterator) -> Any | None:
        """Restore the latest sound checkpoint; None if there is no checkpoint at all.

        A damaged checkpoint is passed over with a warning, and set aside as ``<step>.damaged``.

        Raises:
            InputError: every checkpoint is damaged, or the latest sound one does not fit `like`.
        """
        damaged: list[int] = []
        for step in reversed(self.steps()):
            try:
                state = self.restore(step, like=like, batches=batches)
            except DamagedCheckpointError as error:
                _logger.warning("%s", error)
                damaged.append(step)
            else:
                self._set_aside(damaged)
                return state
        if damaged:
            raise InputError(
                f"every checkpoint in {self._directory} is damaged ({_join(damaged)}). "
                "Use another work directory, or delete these to start from the beginning."
            )
        return None

    def close(self) -> None:
        """Wait for the save in flight, then release the directory."""
        try:
            self.wait()
        finally:
            self._manager.close()
            logging.getLogger("absl").removeFilter(_is_not_orbax_traceback)
            if self._lock is not None:
                self._lock.close()

    def should_preserve(self, checkpoints: Sequence[Any], *, context: object) -> list[bool]:
        """Tell Orbax's manager which checkpoints to preserve (its PreservationPolicy protocol)."""
        scores = {info.step: self._scores.get(info.step) for info in checkpoints}
        kept = steps_to_keep(scores, keep_last=self._keep_last, keep_best=self._keep_best)
        return [info.step in kept for info in checkpoints]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _write_manifest(self) -> None:
        """Seal the step in flight; Orbax calls it in the background, before the final renaming."""
        if jax.process_index() == 0:
            write_manifest(self._directory / f"{self._last_saved}{ocp.path.step.TMP_DIR_SUFFIX}")

    def _save_error(self, error: Exception) -> InputError:
        no_space = os.strerror(errno.ENOSPC)
        reason = no_space if no_space in str(error) else checkpoint_reader.describe_error(error)
        return InputError(
            f"checkpoint of step {self._last_saved} cannot be saved in {self._directory}: "
            f"{reason}. Earlier checkpoints are intact; start again to resume from them."
        )

    def _set_aside(self, steps: Sequence[int]) -> None:
        """Rename damaged checkpoints, so that their steps can be saved again."""
        if steps and jax.process_index() == 0:
            for step in steps:
                aside = self._directory / f"{step}.damaged"
                shutil.rmtree(aside, ignore_errors=True)
                (self._directory / str(step)).rename(aside)
            _logger.warning("Set aside as *.damaged in %s: %s", self._directory, _join(steps))
        self._manager.reload()


def _is_not_orbax_traceback(record: logging.LogRecord) -> bool:
    """Tell whether to log a record: Orbax logs each error several times before it raises it."""
    return record.exc_info is None or "orbax" not in record.pathname


def _join(steps: Sequence[int]) -> str:
    return ", ".join(f"step {step}" for step in sorted(steps))
