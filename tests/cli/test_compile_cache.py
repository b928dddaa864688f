import os
import subprocess
import sys

import pytest

from flax_transformer.cli import compile_cache

SCRIPT = """
from flax_transformer.cli.compile_cache import keep_compiled_programs
keep_compiled_programs()
import jax, jax.numpy as jnp
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
print(jax.jit(lambda x: jnp.tanh(x) @ x)(jnp.eye(3))[0, 0])
"""


def run(home, **variables):
    """Compile something; return the programs that are kept below ``home`` afterwards."""
    environment = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    environment |= {"XDG_CACHE_HOME": str(home), **variables}
    subprocess.run([sys.executable, "-c", SCRIPT], env=environment, check=True)
    return {path: path.stat().st_mtime_ns for path in home.rglob("*-cache")}


def test_programs_are_kept_for_the_next_run(tmp_path):
    first = run(tmp_path)
    assert first
    assert all("flax_transformer/compiled" in str(path) for path in first)
    assert run(tmp_path) == first


def test_the_variable_of_jax_has_the_last_word(tmp_path):
    other = tmp_path / "other"
    home = tmp_path / "home"
    assert not run(home, JAX_COMPILATION_CACHE_DIR=str(other))
    assert list(other.iterdir())
    assert not run(home, JAX_COMPILATION_CACHE_DIR="")


WITHOUT_HOME = """
import os
import jax
from flax_transformer.cli.compile_cache import keep_compiled_programs
os.setuid(54321)  # a user whom the system does not know
keep_compiled_programs()
print(jax.config.jax_compilation_cache_dir)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become a user without a home")
def test_a_user_without_a_home_keeps_none():
    names = ("HOME", "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR")
    environment = {k: v for k, v in os.environ.items() if k not in names}
    command = [sys.executable, "-c", WITHOUT_HOME]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert done.stdout == "None\n"


def test_the_oldest_programs_make_room(tmp_path, monkeypatch):
    for age, name in enumerate(("new", "old", "older")):
        path = tmp_path / f"{name}-cache"
        path.write_bytes(b"12345")
        os.utime(path, (1000 - age, 1000 - age))
    monkeypatch.setattr(compile_cache, "_MAX_BYTES", 11)
    compile_cache._make_room(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"new-cache", "old-cache"}
