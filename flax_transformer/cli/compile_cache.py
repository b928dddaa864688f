"""Compiled programs, kept on disk from one run of a command to the next."""

import contextlib
import hashlib
import os
import platform
from pathlib import Path

VARIABLE = "JAX_COMPILATION_CACHE_DIR"
_MIN_COMPILE_SECONDS = 0.2
_MAX_BYTES = 2 << 30


def keep_compiled_programs() -> None:
    """Let JAX, not yet imported, keep what it compiles in the user's cache, and look there first.

    JAX's own variable ``JAX_COMPILATION_CACHE_DIR`` names another directory, and an empty one is
    for none; so is a user without a home. Programs of other versions, sizes or devices are never
    taken for one another, and the oldest make room where there are more than 2 GiB of them.
    """
    if VARIABLE in os.environ:
        return
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # there is no home
        return
    directory = cache / "flax_transformer" / "compiled" / _describe_processor()
    _make_room(directory)
    # By its environment, which JAX reads when it is imported: to import it takes half a second,
    # which a command that restarts itself would spend twice.
    os.environ[VARIABLE] = str(directory)
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", str(_MIN_COMPILE_SECONDS))


def _make_room(directory: Path) -> None:
    """Delete the oldest programs until the others are small enough together.

    JAX's own limit of the size fails for good after a process that was killed while it wrote.
    """
    programs = []
    for path in directory.glob("*-cache"):
        with contextlib.suppress(OSError):  # another process may delete it, too
            status = path.stat()
            programs.append((status.st_mtime_ns, status.st_size, path))
    num_bytes = 0
    for _, size, path in sorted(programs, reverse=True):
        num_bytes += size
        if num_bytes > _MAX_BYTES:
            with contextlib.suppress(OSError):
                path.unlink()


def _describe_processor() -> str:
    """Name the kind of processor: hosts that share a home directory may have different ones."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:8]}"
