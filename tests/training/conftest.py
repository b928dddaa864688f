"""A tiny training that the tests of the loop share."""

import functools
from collections.abc import Callable

import pytest
from tiny_training import Outcome, TinyTask, make_tiny_task, run_tiny_training


@pytest.fixture(scope="session")
def tiny_task(tmp_path_factory: pytest.TempPathFactory) -> TinyTask:
    return make_tiny_task(tmp_path_factory.mktemp("loop"))


@pytest.fixture
def run_training(tiny_task: TinyTask) -> Callable[..., Outcome]:
    """Return :func:`run_tiny_training` of the task."""
    return functools.partial(run_tiny_training, tiny_task)
