import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flax_transformer.errors import InputError
from flax_transformer.training.optimizer import (
    OptimizerConfig,
    clip_by_global_norm,
    make_optimizer,
    make_schedule,
    peak_learning_rate,
)


@pytest.mark.parametrize(("model_dim", "warmup_steps"), [(512, 4000), (16, 37), (1024, 1)])
def test_inverse_sqrt_is_equation_3_of_the_paper(model_dim, warmup_steps):
    config = OptimizerConfig(
        learning_rate=peak_learning_rate(model_dim=model_dim, warmup_steps=warmup_steps),
        warmup_steps=warmup_steps,
    )
    step = np.arange(1, 20_001, dtype=np.float64)
    expected = model_dim**-0.5 * np.minimum(step**-0.5, step * float(warmup_steps) ** -1.5)
    actual = make_schedule(config, num_steps=20_000)(np.arange(20_000))
    np.testing.assert_allclose(actual, expected, rtol=1e-5)
    assert np.argmax(actual) == warmup_steps - 1


@pytest.mark.parametrize("name", ["inverse_sqrt", "cosine", "constant"])
def test_schedules_rise_to_the_peak_and_go_on_without_a_jump(name):
    warmup, num_steps = 100, 1100
    config = OptimizerConfig(learning_rate=0.5, warmup_steps=warmup, schedule=name)
    rates = np.asarray(make_schedule(config, num_steps=num_steps)(np.arange(num_steps)))
    np.testing.assert_allclose(rates[:warmup], 0.5 * np.arange(1, warmup + 1) / warmup, rtol=1e-6)
    assert rates.max() == 0.5
    assert np.abs(np.diff(rates)).max() <= 0.5 / warmup + 1e-6
    last = {"inverse_sqrt": 0.5 * (warmup / num_steps) ** 0.5, "cosine": 0.0, "constant": 0.5}
    np.testing.assert_allclose(rates[-1], last[name], atol=1e-7)


def test_cosine_is_half_the_peak_half_way_and_stays_at_zero():
    config = OptimizerConfig(learning_rate=0.5, warmup_steps=1, schedule="cosine")
    schedule = make_schedule(config, num_steps=101)
    np.testing.assert_allclose(schedule(50), 0.25, atol=1e-6)
    np.testing.assert_allclose(schedule(500), 0.0, atol=1e-7)


def test_a_run_shorter_than_its_warm_up_stays_below_the_peak():
    config = OptimizerConfig(learning_rate=0.5, warmup_steps=10, schedule="cosine")
    rates = make_schedule(config, num_steps=5)(np.arange(5))
    np.testing.assert_allclose(rates, 0.05 * np.arange(1, 6), rtol=1e-6)


@pytest.mark.parametrize("size", [0.0, 0.3, 1.0, 70.0])
def test_clipping_is_that_of_optax(size):
    direction = {"kernel": jnp.linspace(-1.0, 2.0, 15).reshape(3, 5), "bias": jnp.array([0.7])}
    gradients = jax.tree.map(lambda leaf: size * leaf / optax.global_norm(direction), direction)
    ours, theirs = clip_by_global_norm(0.9), optax.clip_by_global_norm(0.9)
    clipped, _ = ours.update(gradients, ours.init(direction))
    expected, _ = theirs.update(gradients, theirs.init(direction))
    for array, other in zip(jax.tree.leaves(clipped), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(array, other, rtol=1e-6)


@pytest.mark.parametrize("schedule", ["inverse_sqrt", "cosine", "constant"])
@pytest.mark.parametrize("name", ["adam", "adamw", "adafactor"])
def test_every_choice_lowers_a_quadratic(name, schedule):
    config = OptimizerConfig(name=name, schedule=schedule, learning_rate=0.05, warmup_steps=3)
    optimizer = make_optimizer(config, num_steps=60)
    start = {"kernel": jnp.linspace(-1.0, 2.0, 15).reshape(3, 5), "bias": jnp.array([0.7, -1.1])}

    def loss_fn(params):
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))

    @jax.jit
    def fit(params):
        def step(_, carry):
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss_fn)(params), state, params)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(0, 60, step, (params, optimizer.init(params)))[0]

    assert loss_fn(fit(start)) < 0.5 * loss_fn(start)


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_clipping_bounds_the_global_norm_and_keeps_the_direction(scale):
    params = {"a": jnp.zeros(3), "b": jnp.zeros(2)}
    gradient = {"a": scale * jnp.array([1.0, -2.0, 3.0]), "b": scale * jnp.array([4.0, 5.0])}
    norm = float(optax.global_norm(gradient))

    def first_moment(clip_norm):
        optimizer = make_optimizer(OptimizerConfig(b1=0.9, clip_norm=clip_norm), num_steps=9)
        _, state = optimizer.update(gradient, optimizer.init(params), params)
        return jax.tree.map(lambda leaf: leaf / 0.1, optax.tree_utils.tree_get(state, "mu"))

    clipped, unclipped = first_moment(0.5), first_moment(None)
    np.testing.assert_allclose(optax.global_norm(unclipped), norm, rtol=1e-5)
    np.testing.assert_allclose(optax.global_norm(clipped), min(norm, 0.5), rtol=1e-5)
    for name in params:
        factor = min(1.0, 0.5 / norm)
        np.testing.assert_allclose(clipped[name], factor * unclipped[name], rtol=1e-5)


def test_weight_decay_shrinks_parameters_without_a_gradient():
    params = {"kernel": jnp.ones((2, 3))}
    optimizer = make_optimizer(
        OptimizerConfig(name="adamw", weight_decay=0.5, learning_rate=0.1, warmup_steps=1),
        num_steps=9,
    )
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    np.testing.assert_allclose(updates["kernel"], -0.05, rtol=1e-6)


def test_weight_decay_is_of_matrices_alone_adapters_included():
    names = ("kernel", "lora_a", "lora_b", "embedding", "bias", "scale")
    params = {"layer": {name: jnp.ones((2, 2)) for name in names}}
    config = OptimizerConfig(name="adamw", weight_decay=0.5, warmup_steps=1)
    optimizer = make_optimizer(config, num_steps=9)
    zero = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    shrunk = {name for name, update in updates["layer"].items() if (update < 0).all()}
    assert shrunk == {"kernel", "lora_a", "lora_b", "embedding"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"learning_rate": 0.0}, "optimizer.learning_rate must be positive and finite, got 0.0"),
        ({"learning_rate": float("nan")}, "optimizer.learning_rate must .*, got nan"),
        ({"learning_rate": float("inf")}, "optimizer.learning_rate must .*, got inf"),
        ({"name": "sgd"}, "optimizer.name must be adam, adamw or adafactor, got 'sgd'"),
        ({"schedule": "linear"}, "optimizer.schedule must be .*, got 'linear'"),
        ({"warmup_steps": 0}, "optimizer.warmup_steps must be at least 1, got 0"),
        ({"b1": 1.0}, r"optimizer.b1 must lie in \[0, 1\), got 1.0"),
        ({"b2": float("nan")}, r"optimizer.b2 must lie in \[0, 1\), got nan"),
        ({"epsilon": 0.0}, "optimizer.epsilon must be positive"),
        ({"epsilon": float("inf")}, "optimizer.epsilon must be positive and finite, got inf"),
        ({"name": "adamw", "weight_decay": -0.1}, "optimizer.weight_decay must be .*, got -0.1"),
        ({"name": "adamw", "weight_decay": float("inf")}, "optimizer.weight_decay must .* finite"),
        ({"weight_decay": 0.1}, "optimizer.weight_decay needs optimizer.name adamw"),
        ({"clip_norm": 0.0}, "optimizer.clip_norm must be positive or None, got 0.0"),
    ],
)
def test_what_cannot_work_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        OptimizerConfig(**changes)
