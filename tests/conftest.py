"""What all tests share: simulated devices, and shapes and types checked at run time."""

import atexit
import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from compile_fast import COMPILE_FAST
from jaxtyping import install_import_hook

_SIMULATE_DEVICES = "--xla_force_host_platform_device_count=8"

# JAX reads these when it is first imported and when it first computes: both come later.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
    flags = os.environ.get("XLA_FLAGS", COMPILE_FAST)
    os.environ["XLA_FLAGS"] = f"{flags} {_SIMULATE_DEVICES}".strip()

# What one test has compiled need not be compiled again by another, or by a command it starts.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="flax_transformer_tests_")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")

# Every annotation of these modules is checked in every call; under jit, once a trace. Not so in
# those with configs: what a user gives them is checked, and refused, by themselves.
install_import_hook(
    [
        "flax_transformer.nn",
        "flax_transformer.models.encoder_decoder",
        "flax_transformer.models.stack",
    ],
    typechecker="beartype.beartype",
)

# A deadline would judge the machine and its load, not the code.
hypothesis.settings.register_profile("no_deadline", deadline=None)
hypothesis.settings.load_profile("no_deadline")

_MOST_MAPS = 12_000
"""Of memory; Linux gives a process 65,530, and XLA does not survive the end of them."""


@pytest.fixture(autouse=True, scope="module")
def _drop_compiled_programs() -> Iterator[None]:
    """Drop what has been compiled where there is much of it: each program takes a few maps."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and len(maps.read_bytes().splitlines()) > _MOST_MAPS:
        import jax  # not before: it reads the variables above

        jax.clear_caches()
        gc.collect()
