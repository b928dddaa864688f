"""The limit of threads: what it counts, and what it makes XLA do."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flax_transformer.errors import InputError
from flax_transformer.parallel.threads import count_threads, limit_threads

_COUNT_XLA_THREADS = """
import os, sys
from flax_transformer.errors import InputError
from flax_transformer.parallel.threads import limit_threads
limit_threads(int(sys.argv[1]))
import jax.numpy as jnp
jnp.ones(3).block_until_ready()
tasks = "/proc/self/task"
names = [open(f"{tasks}/{task}/comm").read().strip() for task in os.listdir(tasks)]
print(names.count("tf_XLAEigen"))
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's list of threads")
@pytest.mark.parametrize("count", [1, 3])
def test_xla_starts_as_many_threads_as_it_may(count):
    command = [sys.executable, "-c", _COUNT_XLA_THREADS, str(count)]
    # Without the simulated devices, of which each has threads of its own.
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert int(done.stdout) == count


def test_the_cores_are_counted_as_far_as_the_limit(monkeypatch):
    monkeypatch.setenv("NPROC", "")  # what is set below ends with the test
    num_cores = count_threads()
    assert 1 <= num_cores <= (os.cpu_count() or 1)
    for limit, expected in ((1, 1), (num_cores, num_cores), (num_cores + 1, num_cores)):
        limit_threads(limit)
        assert count_threads() == expected


def test_there_is_at_least_one_thread():
    with pytest.raises(InputError, match="count must be at least 1, got 0"):
        limit_threads(0)


@pytest.mark.parametrize("value", ["", "0", "-1", "many"])
def test_a_limit_that_is_none_is_none(monkeypatch, value):
    monkeypatch.delenv("NPROC", raising=False)
    num_cores = count_threads()
    monkeypatch.setenv("NPROC", value)
    assert count_threads() == num_cores
