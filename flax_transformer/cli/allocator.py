"""Set-up of the C library's allocator, which must be there before the process starts."""

import os
import platform
import sys

TUNABLES = "GLIBC_TUNABLES"
HUGE_PAGES = "glibc.malloc.hugetlb=1"
OPT_OUT = "--no-huge-pages"


def restart_with_huge_pages(argv: list[str]) -> list[str]:
    """Restart this process once with large memory pages; return ``argv`` without the option.

    XLA on a CPU takes its working memory anew at every step, and gives it back. With pages of
    2 MiB instead of 4 KiB that costs a fraction of the page faults, and a training step of a small
    model takes about 60 % of its processor time. glibc reads the setting when a process starts,
    so that the process must replace itself (:func:`say_so` tells of it). It does so on Linux
    with glibc only, not where JAX_PLATFORMS names another device than the CPU, and not if the
    setting is already there or ``--no-huge-pages`` is given.
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
    environment = {**os.environ, TUNABLES: HUGE_PAGES}
    return os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def say_so() -> None:
    """Tell on standard error that this process has been restarted, if it has."""
    if os.environ.get(TUNABLES) == HUGE_PAGES:
        print(f"restarted with {TUNABLES}={HUGE_PAGES} ({OPT_OUT} to prevent it)", file=sys.stderr)
