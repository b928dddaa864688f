"""Write the checkpoints of a run in the background, and resume from them."""

import errno
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grain
import grain.checkpoint
import jax
import orbax.checkpoint as ocp

from flax_transformer.checkpoints import contents, reader
from flax_transformer.checkpoints.attachments import Attachments
from flax_transformer.checkpoints.damage import find_damaged, join_steps, set_aside
from flax_transformer.checkpoints.directory_lock import lock_directory
from flax_transformer.checkpoints.manifest import write_manifest
from flax_transformer.checkpoints.retention import steps_to_keep
from flax_transformer.checkpoints.unfinished import (
    list_unfinished,
    remove_unfinished,
    unfinished_path,
)
from flax_transformer.errors import InputError
from flax_transformer.parallel.processes import is_first_process

_logger = logging.getLogger(__name__)


class Checkpointer:
    """Saves training states asynchronously; keeps the last ones and the best ones.

    A checkpoint holds the whole state, the position in the data and the metrics of its step. It
    appears under its final name only when it is complete, so a process may be killed at any moment
    without harm to what was saved before. Older checkpoints are deleted after a newer one is
    complete. One process (or one group of processes) at a time may write to a directory; to read
    a run that may still be training use :mod:`flax_transformer.checkpoints.reader`.

    A save that fails (say, no space is left) is tried again with the state that there is then:
    :meth:`retry_if_failed` looks after every step whether there is a need, :meth:`save` and
    :meth:`finish` look too. Of several processes none knows that another one failed, so there a
    failure ends the run, at the latest when Orbax gives up waiting for the others.

    Use it as a context manager: leaving it waits for the save in flight.

    Args:
        directory: made if missing; what an interrupted save left there is removed.
        keep_last: number of latest checkpoints to keep.
        keep_best: number of checkpoints with the highest `best_metric` to keep besides. A missing
            or NaN score never displaces a checkpoint that has one.
        best_metric: name of the metric that ranks the checkpoints. A step that is saved again with
            its score, after an evaluation, is ranked by it.
        attachments: files that every checkpoint carries.
        save_attempts: how often a save is tried before it fails for good, at least 1.
        retry_pause: seconds between the first attempt and the second; doubles with each.

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
        save_attempts: int = 3,
        retry_pause: float = 1.0,
    ):
        if keep_last < 1:
            raise InputError(f"keep_last must be at least 1, got {keep_last}.")
        if keep_best < 0:
            raise InputError(f"keep_best must be at least 0, got {keep_best}.")
        if save_attempts < 1:
            raise InputError(f"save_attempts must be at least 1, got {save_attempts}.")
        self._directory = directory.absolute()
        self._keep_last = keep_last
        self._keep_best = keep_best
        self._best_metric = best_metric
        self._attachments = dict(attachments or {})
        self._save_attempts = save_attempts if jax.process_count() == 1 else 1
        self._retry_pause = retry_pause
        self._lock = lock_directory(self._directory) if is_first_process() else None
        self._found_unfinished = bool(list_unfinished(self._directory))
        self._scores = self._read_scores()
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
            InputError: all attempts at this save, or the one before it, failed; or a later step is
                already there.
        """
        self.finish(state, batches, metrics=metrics)
        step = int(state.step)
        steps = self.steps()
        if steps and step not in steps and step < steps[-1]:
            raise InputError(
                f"step {step} must come after the steps in {self._directory}, got one before "
                f"{steps[-1]}. Resume from the latest checkpoint, or use another work directory."
            )
        self._retry(self._start(state, batches, metrics), state, batches, metrics)

    def retry_if_failed(
        self, state: Any, batches: grain.DatasetIterator, *, metrics: Mapping[str, float]
    ) -> None:
        """Save this state now if the last save has failed; call it after every step.

        Returns at once if nothing has failed so far. Arguments and errors are those of
        :meth:`save`, but this returns when the state is written.
        """
        if not self._manager.is_saving_in_progress():
            self.finish(state, batches, metrics=metrics)

    def finish(
        self, state: Any, batches: grain.DatasetIterator, *, metrics: Mapping[str, float]
    ) -> None:
        """Wait for the save in flight; if it has failed, save this state instead.

        Arguments and errors are those of :meth:`save`, but this returns when all is written.
        """
        self._retry(self._outcome(), state, batches, metrics)

    def wait(self) -> None:
        """Wait until the last save is complete.

        Raises:
            InputError: it failed; the checkpoints before it are intact.
        """
        if error := self._outcome():
            raise self._save_error(error) from error

    def steps(self) -> list[int]:
        """List the complete checkpoints, in rising order."""
        return reader.list_steps(self._directory)

    def latest_step(self) -> int | None:
        """Return the latest complete checkpoint, or None."""
        return max(self.steps(), default=None)

    def metrics(self, step: int) -> dict[str, float]:
        """Return the metrics saved with a checkpoint; empty if there are none."""
        return reader.read_metrics(self._directory / str(step))

    def forget_scores(self) -> None:
        """Rank the checkpoints there are as ones without a score.

        For good, once the next checkpoint is saved.
        """
        self._scores = dict.fromkeys(self.steps())

    def restore(self, step: int, *, like: Any, batches: grain.DatasetIterator | None) -> Any:
        """Restore the state of one step; see :func:`.reader.restore_state`."""
        self.wait()
        return reader.restore_state(self._directory / str(step), like=like, batches=batches)

    def restore_latest(
        self, *, like: Any, batches: grain.DatasetIterator | None, strict: bool = False
    ) -> Any | None:
        """Restore the latest sound checkpoint; None if there is no checkpoint at all.

        A damaged checkpoint is passed over with a warning, and set aside as ``<step>.damaged``.
        The first process checks the files, and all restore the step that it finds sound.

        Args:
            like: see :func:`.reader.restore_state`.
            batches: likewise; None leaves the position in the data alone.
            strict: take the latest checkpoint or none.

        Raises:
            DamagedCheckpointError: with `strict`, the latest checkpoint is damaged.
            InputError: every checkpoint is damaged, or the latest sound one does not fit `like`.
        """
        self.wait()
        steps = self.steps()[::-1]
        errors = find_damaged(self._directory, steps)
        if errors and strict:
            raise errors[0]
        if is_first_process():
            for error in errors:
                _logger.warning("%s", error)
        damaged, sound = steps[: len(errors)], steps[len(errors) :]
        if sound:
            state = reader.restore_state(
                self._directory / str(sound[0]), like=like, batches=batches, verify=False
            )
            set_aside(self._directory, damaged)
            self._manager.reload()
            return state
        if damaged:
            raise InputError(
                f"every checkpoint in {self._directory} is damaged ({join_steps(damaged)}). "
                "Use another work directory, or delete these to start from the beginning."
            )
        if self._found_unfinished and is_first_process():
            _logger.warning("no complete checkpoint in %s; starting from step 0", self._directory)
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

    def _start(
        self, state: Any, batches: grain.DatasetIterator, metrics: Mapping[str, float]
    ) -> Exception | None:
        """Start writing the state, if it is not there; return the error if that fails already."""
        step = int(state.step)
        self._scores[step] = metrics.get(self._best_metric, self._scores.get(step))
        if step in self.steps():
            return None
        self._last_saved = step
        if not self._directory.is_dir():  # Orbax would make it anew, without a lock
            return FileNotFoundError("the directory is gone")
        items = {
            contents.STATE_ITEM: ocp.args.PyTreeSave(state),
            contents.BATCHES_ITEM: grain.checkpoint.CheckpointSave(batches),
            contents.METRICS_ITEM: ocp.args.JsonSave(contents.encode_numbers(metrics)),
            contents.ATTACHMENTS_ITEM: ocp.args.JsonSave(self._attachments),
            contents.RANKING_ITEM: ocp.args.JsonSave(self._ranking()),
            contents.ABOUT_ITEM: ocp.args.JsonSave(contents.describe_writer()),
        }
        try:
            self._manager.save(step, args=ocp.args.Composite(**items), force=True)
        except Exception as error:  # the file system's errors have no common class here
            return error
        return None

    def _read_scores(self) -> dict[int, float | None]:
        """Return the score that each checkpoint has in the ranking of the latest, or its own.

        A checkpoint does not know a score that was measured after it was saved; the next one does.
        """
        steps = self.steps()
        ranking = contents.read_json_item(
            self._directory / str(max(steps, default=0)), contents.RANKING_ITEM
        )
        return {
            step: ranking[str(step)]
            if str(step) in ranking
            else self.metrics(step).get(self._best_metric)
            for step in steps
        }

    def _ranking(self) -> dict[str, float | None]:
        return contents.encode_numbers({str(step): self._scores.get(step) for step in self.steps()})

    def _outcome(self) -> Exception | None:
        """Wait for the save in flight; return the error that it ended in, once."""
        try:
            self._manager.wait_until_finished()
        except Exception as error:  # as above
            return error
        return None

    def _retry(
        self,
        error: Exception | None,
        state: Any,
        batches: grain.DatasetIterator,
        metrics: Mapping[str, float],
    ) -> None:
        """Save the state, waiting for it, if the attempt before ended in an error."""
        pause = self._retry_pause
        for _ in range(1, self._save_attempts):
            if error is None:
                return
            self._remove_unfinished()
            _logger.warning(
                "checkpoint of step %s cannot be saved in %s: %s. Trying again in %g s with step "
                "%d.",
                self._last_saved,
                self._directory,
                _reason(error),
                pause,
                int(state.step),
            )
            time.sleep(pause)
            pause *= 2
            error = self._start(state, batches, metrics) or self._outcome()
        if error is not None:
            self._remove_unfinished()
            raise self._save_error(error) from error

    def _remove_unfinished(self) -> None:
        """Remove what a failed save left, and let the manager see what is there."""
        if jax.process_count() == 1:
            remove_unfinished(self._directory)
            self._manager.reload()

    def _write_manifest(self) -> None:
        """Seal the step in flight.

        Orbax calls it in the background, in the first process alone, when all processes have
        written their files and before the directory gets its final name.
        """
        assert self._last_saved is not None  # it is called for saves alone
        write_manifest(unfinished_path(self._directory, self._last_saved))

    def _save_error(self, error: Exception) -> InputError:
        others = "There is no other checkpoint"
        if steps := self.steps():
            intact = join_steps(steps)
            others = f"The checkpoints before it are intact ({intact}); start again to resume"
        return InputError(
            f"checkpoint of step {self._last_saved} cannot be saved in {self._directory}: "
            f"{_reason(error)}. {others}."
        )


def _is_not_orbax_traceback(record: logging.LogRecord) -> bool:
    """Tell whether to log a record: Orbax logs each error several times before it raises it."""
    return record.exc_info is None or "orbax" not in record.pathname


def _reason(error: Exception) -> str:
    no_space = os.strerror(errno.ENOSPC)
    return no_space if no_space in str(error) else reader.describe_error(error)
