"""The examples: each learns something in a few steps. ``.ci/run`` has the full runs."""

import importlib
import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.py"))


@pytest.fixture
def load(monkeypatch):
    """Return a function that imports an example, or skips the test if it needs what is missing."""
    monkeypatch.syspath_prepend(str(EXAMPLES))

    def load_example(name):
        skip_unless_installed(name)
        return importlib.import_module(name)

    return load_example


def skip_unless_installed(name):
    if name == "vision_transformer" and not importlib.util.find_spec("sklearn"):
        pytest.skip('needs scikit-learn: pip install -e ".[examples]"')


def test_lists_are_sorted_with_plain_functions(load):
    sort = load("plain_jax_loop")
    figures = sort.main(num_steps=60)
    assert figures.last_loss < 0.4 * figures.first_loss

    numbers, ordered = sort.draw(jax.random.key(1), batch_size=50)
    for row, in_order in zip(np.array(numbers), np.array(ordered), strict=True):
        length = np.count_nonzero(row)
        assert sorted(row[:length]) == list(in_order[:length])
        assert not row[length:].any()


def test_an_nnx_model_trains_our_layers(load):
    figures = load("nnx_bridge").main(num_steps=100)
    assert figures.last_loss < 0.8 * figures.first_loss
    assert figures.accuracy > 1.5 * figures.chance


def test_digits_are_told_apart(load):
    figures = load("vision_transformer").main(num_steps=100)
    assert figures.last_loss < 0.7 * figures.first_loss
    assert figures.test_accuracy > 0.15  # chance: 0.1


def test_series_are_forecast(load):
    figures = load("time_series").main(num_steps=60)
    assert figures.error < 0.8 * figures.first_error
    # What is repeated and what comes have independent noise of variance 1.
    assert figures.seasonal_naive > 2.0**0.5
    assert 1.0 < figures.trend_and_week < figures.seasonal_naive


def test_random_walks_teach_short_ways(load):
    figures = load("decision_transformer").main(num_steps=100)
    assert figures.last_loss < 0.6 * figures.first_loss
    assert figures.reached_return > figures.random_return


def test_walks_keep_off_walls_and_count_the_steps_to_the_goal(load):
    grid = load("decision_transformer")
    walks = grid.draw_walks(np.random.default_rng(1))
    assert (grid.CELLS[walks.cells] != "#").all()
    arrives = walks.to_come[:, -1] > -grid.HORIZON
    is_under_way = walks.cells[arrives, :-1] != grid.GOAL
    assert (np.diff(walks.to_come[arrives], axis=1) == is_under_way).all()
    assert (walks.to_come[~arrives] == -grid.HORIZON).all()
