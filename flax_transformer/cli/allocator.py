"""Set-up of the C library's allocator, which must be there before the process starts."""

import os
import platform
import sys

TUNABLES = "GLIBC_TUNABLES"
SETTINGS = ":".join(
    (
        "glibc.malloc.hugetlb=1",
        # All memory from one heap that never shrinks: what a step has used stays for the next.
        "glibc.malloc.arena_max=1",
        "glibc.malloc.mmap_max=0",
        f"glibc.malloc.trim_threshold={2**40}",
    )
)
OPT_OUT = "--default-allocator"


def restart_with_tuned_allocator(argv: list[str]) -> list[str]:
    """Restart this process once so that it keeps its memory; return ``argv`` without the option.

    XLA on a CPU takes its working memory anew at every step, and gives it back. With pages of
    2 MiB instead of 4 KiB, in a heap that is not returned to the system, no step has a page fault;
    that is 40 % of the processor time of training a small model. glibc reads the settings when a
    process starts, so that the process must replace itself (:func:`say_so` tells of it). It does so
    on Linux with glibc only, not where JAX_PLATFORMS names another device than the CPU, and not if
    there are settings already or ``--default-allocator`` is given.
    """
    remaining = [argument for argument in argv if argument != OPT_OUT]
    wants_cpu = os.environ.get("JAX_PLATFORMS", "cpu") in ("", "cpu")
    if (
        len(remaining) < len(argv)
        or platform.libc_ver()[0] != "glibc"
        or not wants_cpu
        or TUNABLES in os.environ
    ):
        return remaining
    environment = {**os.environ, TUNABLES: SETTINGS}
    return os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def say_so() -> None:
    """Tell on standard error that this process has been restarted, if it has."""
    if os.environ.get(TUNABLES) == SETTINGS:
        print(f"restarted with {TUNABLES}={SETTINGS} ({OPT_OUT} to prevent it)", file=sys.stderr)
