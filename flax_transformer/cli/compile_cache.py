"""Compiled programs, kept on disk from one run of a command to the next."""

import hashlib
import os
import platform
from pathlib import Path

import jax

VARIABLE = "JAX_COMPILATION_CACHE_DIR"
_MIN_COMPILE_SECONDS = 0.2


def keep_compiled_programs() -> None:
    """Let JAX keep what it compiles in the user's cache directory, and look there first.

    JAX's own variable ``JAX_COMPILATION_CACHE_DIR`` names another directory, and an empty one is
    for none. Programs of other versions, sizes or devices are never taken for one another.
    """
    if VARIABLE in os.environ:
        return
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    directory = home / "flax_transformer" / "compiled" / _describe_processor()
    jax.config.update("jax_compilation_cache_dir", str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _MIN_COMPILE_SECONDS)


def _describe_processor() -> str:
    """Name the kind of processor: hosts that share a home directory may have different ones."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:8]}"
