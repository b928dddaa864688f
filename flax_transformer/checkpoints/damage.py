"""Find the damaged checkpoints that stand before the latest sound one, and put them away."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jax.experimental import multihost_utils

from flax_transformer.checkpoints.manifest import find_damage
from flax_transformer.checkpoints.reader import DamagedCheckpointError
from flax_transformer.parallel.processes import is_first_process, wait_for_all

_logger = logging.getLogger(__name__)


def find_damaged(directory: Path, steps: Sequence[int]) -> list[DamagedCheckpointError]:
    """Tell what is wrong with each of the steps, up to the first one that is sound.

    The first process reads the files, and all go by what it finds: none takes another step.

    Args:
        directory: that of the checkpoints, shared by the processes.
        steps: in the order in which they are to be tried.

    Returns:
        One error for each step before the sound one, or for all if none is sound.
    """
    errors: list[DamagedCheckpointError] = []
    for step in steps if is_first_process() else ():
        damage = find_damage(directory / str(step))
        if damage is None:
            break
        errors.append(DamagedCheckpointError(directory / str(step), damage))
    count = int(multihost_utils.broadcast_one_to_all(np.int32(len(errors))))
    return errors or [
        DamagedCheckpointError(directory / str(step), "the first process says how")
        for step in steps[:count]
    ]


def set_aside(directory: Path, steps: Sequence[int]) -> None:
    """Rename damaged checkpoints to ``<step>.damaged``, so that their steps can be saved again.

    All processes must call it, with the same steps.
    """
    if is_first_process():
        for step in steps:
            aside = directory / f"{step}.damaged"
            shutil.rmtree(aside, ignore_errors=True)
            (directory / str(step)).rename(aside)
        if steps:
            _logger.warning("set aside as *.damaged in %s: %s", directory, join_steps(steps))
    wait_for_all("damaged checkpoints are set aside")


def join_steps(steps: Sequence[int]) -> str:
    """Name steps in rising order.

    >>> join_steps([20, 10])
    'step 10, step 20'
    """
    return ", ".join(f"step {step}" for step in sorted(steps))
