"""What saves that are not complete leave in the directory of the checkpoints."""

import logging
import shutil
import time
from pathlib import Path

import orbax.checkpoint as ocp

_logger = logging.getLogger(__name__)

_SUFFIX = ocp.path.step.TMP_DIR_SUFFIX


def unfinished_path(directory: Path, step: int) -> Path:
    """Return where a checkpoint is written before it is complete."""
    return directory / f"{step}{_SUFFIX}"


def list_unfinished(directory: Path) -> list[Path]:
    """List the directories of saves that are not complete, in no certain order."""
    return list(directory.glob(f"*{_SUFFIX}"))


def remove_unfinished(directory: Path, *, quiet: float = 0.05, patience: float = 10.0) -> None:
    """Remove what failed saves left, until nothing more comes.

    A save ends with its first error, while threads of TensorStore may still write other files of
    it: they fill a directory while it is removed, or make it anew.

    Args:
        directory: that of the checkpoints; no save may be in progress.
        quiet: seconds for which nothing must come. Late writes were seen within 0.01 s.
        patience: seconds after which the rest is left, with a warning; the next start removes it.
    """
    start = last_seen = time.monotonic()
    while (now := time.monotonic()) - last_seen < quiet:
        if left := list_unfinished(directory):
            if now - start > patience:
                names = ", ".join(sorted(path.name for path in left))
                _logger.warning("cannot remove all of %s in %s", names, directory)
                return
            for path in left:
                shutil.rmtree(path, ignore_errors=True)
            last_seen = time.monotonic()
        time.sleep(quiet / 10)
