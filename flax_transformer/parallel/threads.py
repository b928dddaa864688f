"""The threads of the processor that compute."""

import os

from flax_transformer.errors import InputError

_VARIABLE = "NPROC"
"""XLA reads it when JAX first computes."""


def limit_threads(count: int) -> None:
    """Let ``count`` threads compute, whatever number of cores there is.

    To be called before JAX first computes; it has no effect after that. Threads that share the
    small products of a single sentence agree on who does what, which can take longer than to
    compute alone.

    Raises:
        InputError: ``count`` is less than 1.
    """
    if count < 1:
        raise InputError(f"count must be at least 1, got {count}.")
    os.environ[_VARIABLE] = str(count)


def count_threads() -> int:
    """Return the number of threads that compute: the cores of this process, unless limited."""
    if hasattr(os, "sched_getaffinity"):
        num_cores = len(os.sched_getaffinity(0))
    else:
        num_cores = os.cpu_count() or 1
    limit = os.environ.get(_VARIABLE, "")
    return min(int(limit), num_cores) if limit.isdecimal() and int(limit) else num_cores
