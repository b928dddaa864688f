"""Updates that are not finite, and the scale of the loss, on a problem of five numbers.

What the loss function does with a batch is chosen by its first source token, so that one compiled
step meets batches that are sound and batches that are not.
"""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flax_transformer.data.batch import Batch
from flax_transformer.errors import InputError
from flax_transformer.parallel.mesh import MeshConfig, make_mesh
from flax_transformer.training.guard import Guard, LossScaleConfig, advance_guard, init_guard
from flax_transformer.training.objective import LossSums
from flax_transformer.training.optimizer import OptimizerConfig, make_optimizer
from flax_transformer.training.state import TrainState
from flax_transformer.training.step import make_train_step

B, T = 4, 5
SOUND, NAN_LOSS, INFINITE_LOSS, NAN_GRADIENT, INFINITE_GRADIENT = range(5)
UNSOUND = {
    "NaN loss": NAN_LOSS,
    "infinite loss": INFINITE_LOSS,
    "NaN gradient": NAN_GRADIENT,
    "infinite gradient": INFINITE_GRADIENT,
}
OPTIMIZER = make_optimizer(OptimizerConfig(learning_rate=0.1, warmup_steps=3), num_steps=100)


def make_batch(kind, *, seed=0, row=0):
    """Make a batch of random labels, of which one row is of a kind."""
    rng = np.random.default_rng(seed)
    source = np.full((B, T), SOUND, np.int32)
    source[row] = kind
    ones = np.ones((B, T), np.int32)
    labels = rng.integers(-9, 9, (B, T)).astype(np.int32)
    return Batch(source, ones, ones, ones, labels, ones, ones, ones)


@jax.custom_gradient
def spoil_gradient(value, factor):
    """Return ``value``; its gradient is multiplied by ``factor``."""
    return value, lambda cotangent: (cotangent * factor, jnp.zeros_like(factor))


def squared_distances(params, batch, dropout_key, *, dtype=jnp.float32):
    """Add up the squared distances of the labels from a weight for each column."""
    del dropout_key
    kind = batch.source.max()
    factor = jnp.array([1.0, 1.0, 1.0, jnp.nan, jnp.inf])[kind]
    weights = spoil_gradient(params["norm"]["scale"], factor).astype(dtype)
    distances = (weights - batch.labels.astype(dtype)).astype(jnp.float32)
    loss = (distances**2).sum() + jnp.array([0.0, jnp.nan, jnp.inf, 0.0, 0.0])[kind]
    return LossSums(loss, loss, jnp.int32(batch.labels.size))


def init(loss_scale=LossScaleConfig(), optimizer=OPTIMIZER):
    params = {"norm": {"scale": jnp.linspace(-1.0, 1.0, T)}}
    return TrainState(
        step=jnp.int32(0),
        params=params,
        optimizer_state=optimizer.init(params),
        dropout_key=jax.random.key_data(jax.random.key(0)),
        guard=init_guard(loss_scale),
    )


@functools.cache
def make_step(
    loss_scale=LossScaleConfig(),
    *,
    loss_function=squared_distances,
    optimizer=OPTIMIZER,
    accumulation_steps=1,
):
    mesh = make_mesh(MeshConfig(data=1), jax.devices()[:1])
    return jax.jit(
        make_train_step(
            loss_function,
            optimizer,
            mesh=mesh,
            accumulation_steps=accumulation_steps,
            loss_scale=loss_scale,
        )
    )


def run(step, state, batches):
    """Return the state after the batches, and the metrics of each."""
    all_metrics = []
    for batch in batches:
        state, metrics = step(state, batch)
        all_metrics.append(jax.device_get(metrics))
    return state, all_metrics


@pytest.mark.parametrize("accumulation_steps", [1, 2])
@pytest.mark.parametrize("kind", UNSOUND.values(), ids=UNSOUND)
def test_an_update_that_is_not_finite_is_left_out(kind, accumulation_steps):
    step = make_step(accumulation_steps=accumulation_steps)
    before, _ = run(step, init(), [make_batch(SOUND, seed=seed) for seed in (1, 2)])
    after, (metrics,) = run(step, before, [make_batch(kind, row=B - 1)])
    assert not (math.isfinite(metrics.loss) and math.isfinite(metrics.gradient_norm))
    # Moments and counts of the optimizer are part of its state.
    chex.assert_trees_all_equal(after.params, before.params)
    chex.assert_trees_all_equal(after.optimizer_state, before.optimizer_state)
    assert int(after.step) == int(before.step) + 1
    assert (int(metrics.num_skipped), int(metrics.num_skipped_in_a_row)) == (1, 1)


@pytest.mark.parametrize("kind", UNSOUND.values(), ids=UNSOUND)
def test_training_goes_on_as_if_the_batch_had_not_come(kind):
    sound = [make_batch(SOUND, seed=seed) for seed in range(4)]
    expected, expected_metrics = run(make_step(), init(), sound)
    actual, metrics = run(make_step(), init(), [*sound[:2], make_batch(kind), *sound[2:]])
    chex.assert_trees_all_equal(actual.params, expected.params)
    chex.assert_trees_all_equal(actual.optimizer_state, expected.optimizer_state)
    assert [step.loss for step in metrics[3:]] == [step.loss for step in expected_metrics[2:]]
    assert [int(step.num_skipped) for step in metrics] == [0, 0, 1, 1, 1]
    assert [int(step.num_skipped_in_a_row) for step in metrics] == [0, 0, 1, 0, 0]


def test_what_is_left_out_is_counted_in_all_and_in_a_row():
    kinds = [NAN_LOSS, NAN_GRADIENT, SOUND, INFINITE_LOSS, INFINITE_GRADIENT, NAN_LOSS]
    state, metrics = run(make_step(), init(), map(make_batch, kinds))
    assert [int(step.num_skipped_in_a_row) for step in metrics] == [1, 2, 0, 1, 2, 3]
    assert [int(step.num_skipped) for step in metrics] == [1, 2, 2, 3, 4, 5]
    assert int(optax.tree_utils.tree_get(state.optimizer_state, "mu")["norm"]["scale"].size) == T


def guards(config, outcomes):
    """Return the guard after each outcome."""
    guard, seen = init_guard(config), []
    for is_finite in outcomes:
        guard = advance_guard(guard, jnp.array(is_finite), config)
        seen.append(Guard(*(leaf.item() for leaf in jax.tree.leaves(guard))))
    return seen


def test_the_scale_halves_on_overflow_and_doubles_when_it_has_held():
    config = LossScaleConfig(initial=16.0, growth_interval=3)
    outcomes = [True, True, False, True, True, True, True, True, False, False]
    scales = [guard.loss_scale for guard in guards(config, outcomes)]
    assert scales == [16.0, 16.0, 8.0, 8.0, 8.0, 16.0, 16.0, 16.0, 8.0, 4.0]


def test_the_scale_stays_between_1_and_2_to_the_24():
    config = LossScaleConfig(initial=2.0**22, growth_interval=1)
    assert [guard.loss_scale for guard in guards(config, [True] * 4)] == [
        2.0**23, 2.0**24, 2.0**24, 2.0**24
    ]  # fmt: skip
    config = LossScaleConfig(initial=4.0)
    assert [guard.loss_scale for guard in guards(config, [False] * 4)] == [2.0, 1.0, 1.0, 1.0]


def test_an_overflow_that_a_smaller_scale_may_mend_is_not_one_in_a_row():
    seen = guards(LossScaleConfig(initial=4.0), [False] * 4 + [True, False])
    assert [guard.num_skipped_in_a_row for guard in seen] == [0, 0, 1, 2, 0, 1]
    assert [guard.num_skipped for guard in seen] == [1, 2, 3, 4, 4, 5]


def test_without_scaling_the_scale_is_1_for_ever():
    seen = guards(LossScaleConfig(growth_interval=1), [True, False, True, True])
    assert {guard.loss_scale for guard in seen} == {1.0}
    assert [guard.num_skipped_in_a_row for guard in seen] == [0, 1, 0, 0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        *(
            (
                {"initial": scale},
                "loss_scale.initial must be None or a power of two from 1 to 16777216, got "
                f"{scale}.",
            )
            for scale in (3.0, 0.5, 2.0**25, math.inf)
        ),
        ({"growth_interval": 0}, "loss_scale.growth_interval must be at least 1, got 0."),
    ],
)
def test_scales_that_cannot_work_are_refused(values, message):
    with pytest.raises(InputError) as raised:
        LossScaleConfig(**values)
    assert str(raised.value) == message


@pytest.mark.parametrize("accumulation_steps", [1, 2, 4])
def test_scaling_and_accumulation_change_float32_by_rounding_only(accumulation_steps):
    scale = LossScaleConfig(initial=2.0**10)
    batches = [make_batch(SOUND, seed=seed) for seed in range(5)]
    expected, expected_metrics = run(make_step(), init(), batches)
    step = make_step(scale, accumulation_steps=accumulation_steps)
    actual, metrics = run(step, init(scale), batches)
    chex.assert_trees_all_close(actual.params, expected.params, rtol=1e-5)
    for ours, theirs in zip(metrics, expected_metrics, strict=True):
        np.testing.assert_allclose(ours.loss, theirs.loss, rtol=1e-6)
        np.testing.assert_allclose(ours.gradient_norm, theirs.gradient_norm, rtol=1e-5)
        assert ours.loss_scale == 2.0**10


def float16_loss(params, batch, dropout_key):
    return squared_distances(params, batch, dropout_key, dtype=jnp.float16)


def faint_loss(params, batch, dropout_key):
    """Let the gradients be about 1e-8, below the least number of float16."""
    sums = float16_loss(params, batch, dropout_key)
    return sums._replace(loss=1e-9 * sums.loss)


SGD = optax.sgd(1.0)


def test_gradients_too_small_for_float16_are_kept_by_the_scale():
    batch = make_batch(SOUND)
    lost, _ = run(make_step(loss_function=faint_loss, optimizer=SGD), init(optimizer=SGD), [batch])
    chex.assert_trees_all_equal(lost.params, init().params)
    scale = LossScaleConfig(initial=2.0**24)
    step = make_step(scale, loss_function=faint_loss, optimizer=SGD)
    _, (metrics,) = run(step, init(scale, SGD), [batch])
    weights = np.linspace(-1.0, 1.0, T)
    gradient = 1e-9 * 2.0 * (weights - batch.labels).sum(axis=0) / (B * T)
    np.testing.assert_allclose(metrics.gradient_norm, np.linalg.norm(gradient), rtol=2e-3)


def test_a_scale_too_large_for_float16_is_halved_until_it_fits():
    scale = LossScaleConfig(initial=2.0**20)
    step = make_step(scale, loss_function=float16_loss)
    state, metrics = run(step, init(scale), [make_batch(SOUND)] * 12)
    num_skipped = int(state.guard.num_skipped)
    assert 0 < num_skipped < 12
    finite = [math.isfinite(step.gradient_norm) for step in metrics]
    assert finite == [False] * num_skipped + [True] * (12 - num_skipped)
    assert all(math.isfinite(step.loss) for step in metrics)
    assert [step.loss_scale for step in metrics[: num_skipped + 1]] == [
        2.0 ** (20 - halvings) for halvings in range(num_skipped + 1)
    ]
    assert all(step.num_skipped_in_a_row == 0 for step in metrics)
    losses = [float(step.loss) for step in metrics[num_skipped:]]
    assert losses == sorted(losses, reverse=True)
