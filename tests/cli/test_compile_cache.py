import os
import subprocess
import sys

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
