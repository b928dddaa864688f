"""What saves that are not complete leave in the directory of the checkpoints."""

import logging
import shutil
import time
from pathlib import Path

import orbax.checkpoint as ocp

_logger = logging.getLogger(__name__)

_SUFFIX = ocp.path.step.TMP_DIR_SUFFIX
_NUM_QUIET_LOOKS = 5


def unfinished_path(directory: Path, step: int) -> Path:
    """Return where a checkpoint is written before it is complete."""
    return directory / f"{step}{_SUFFIX}"


def list_unfinished(directory: Path) -> list[Path]:
    """List the directories of saves that are not complete, in no certain order."""
    return list(directory.glob(f"*{_SUFFIX}"))


def remove_unfinished(directory: Path, *, pause: float = 0.01, patience: float = 10.0) -> None:
    """Remove what failed saves left, until nothing more comes.

    A save ends with its first error, while threads of TensorStore may still write other files of
    it: they fill a directory while it is removed, or make it anew. So it is looked for again until
    nothing was there for several times. Late writes were seen within 0.01 s.

    Args:
        directory: that of the checkpoints; no save may be in progress.
        pause: seconds between two looks.
        patience: seconds after which the rest is left, with a warning; the next start removes it.
    """
    deadline = time.monotonic() + patience
    num_quiet = 0
    while num_quiet < _NUM_QUIET_LOOKS:
        left = list_unfinished(directory)
        if left and time.monotonic() > deadline:
            names = ", ".join(sorted(path.name for path in left))
            _logger.warning("cannot remove all of %s in %s", names, directory)
            return
        for path in left:
            shutil.rmtree(path, ignore_errors=True)
        num_quiet = 0 if left else num_quiet + 1
        time.sleep(pause)
