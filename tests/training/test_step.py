import dataclasses
import functools
import itertools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flax_transformer.data.batch import Batch
from flax_transformer.models.encoder_decoder import EncoderDecoder
from flax_transformer.models.stack import stack_layers, unstack_layers
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.parallel.mesh import MeshConfig, make_mesh, place_rows
from flax_transformer.parallel.parameter_sharding import state_shardings
from flax_transformer.parallel.sharding_rules import ShardingRules
from flax_transformer.training.objective import make_loss_function
from flax_transformer.training.state import init_state
from flax_transformer.training.step import make_train_step, split_rows

B, T, V = 8, 11, 26
NUM_STEPS = 3

CONFIG = TransformerConfig(
    source_vocab_size=V,
    target_vocab_size=V,
    model_dim=16,
    num_encoder_layers=1,
    num_decoder_layers=1,
    num_heads=2,
    feed_forward_dim=24,
    dropout_rate=0.0,
    max_positions=T,
)
# Its updates are linear in the gradients, so that they differ as little as these do.
OPTIMIZER = optax.sgd(0.3, momentum=0.9)


def make_batch(seed):
    """Pack rows unevenly: the first row is full, the last one is padding alone."""
    rng = np.random.default_rng(seed)

    def fill_side():
        tokens, segments, positions = np.zeros((3, B, T), np.int32)
        for row in range(B):
            end = T * (B - 1 - row) // (B - 1)
            cuts = [0, int(rng.integers(end // 2 + 1)), end]
            for segment, (start, stop) in enumerate(itertools.pairwise(cuts), 1):
                tokens[row, start:stop] = rng.integers(1, V, stop - start)
                segments[row, start:stop] = segment
                positions[row, start:stop] = np.arange(stop - start)
        return tokens, segments, positions

    target, segments, positions = fill_side()
    labels = np.where(segments, rng.integers(1, V, (B, T)), 0).astype(np.int32)
    pair_ids = np.where(segments, 1000 * seed + 10 * np.arange(B)[:, None] + segments, -1)
    return Batch(*fill_side(), target, labels, segments, positions, pair_ids.astype(np.int32))


BATCHES = [make_batch(seed) for seed in range(NUM_STEPS)]


@functools.cache
def initial_state(config):
    """The same parameters for every config, stacked or not."""
    model = EncoderDecoder(dataclasses.replace(config, scan_layers=False))
    state = jax.jit(functools.partial(init_state, model, OPTIMIZER))(jax.random.key(0))
    if not config.scan_layers:
        return state
    params = stack_layers(state.params)
    return state.replace(params=params, optimizer_state=OPTIMIZER.init(params))


@functools.cache
def compiled_step(config, sizes, accumulation_steps):
    """Return the mesh, the shardings of the state, and the step, which may be traced once."""
    mesh = make_mesh(
        MeshConfig(data=sizes[0], fsdp=sizes[1], tensor=sizes[2]),
        jax.devices()[: math.prod(sizes)],
    )
    shardings = state_shardings(initial_state(config), mesh, ShardingRules())
    step = make_train_step(
        make_loss_function(EncoderDecoder(config), label_smoothing=0.1),
        OPTIMIZER,
        mesh=mesh,
        accumulation_steps=accumulation_steps,
    )
    chex.clear_trace_counter()
    step = chex.assert_max_traces(step, n=1)
    return mesh, shardings, jax.jit(step, out_shardings=(shardings, None))


def run_steps(config=CONFIG, *, sizes=(1, 1, 1), accumulation_steps=1, batches=BATCHES):
    """Return the state after the batches, and the metrics of every step."""
    mesh, shardings, step = compiled_step(config, sizes, accumulation_steps)
    state = jax.device_put(initial_state(config), shardings)
    all_metrics = []
    for batch in batches:
        state, metrics = step(state, place_rows(batch, mesh))
        all_metrics.append(jax.device_get(metrics))
    return state, all_metrics


@functools.cache
def run_plainly():
    return run_steps()


def assert_same(actual, expected):
    (state, metrics), (expected_state, expected_metrics) = actual, expected
    chex.assert_trees_all_close(metrics, expected_metrics, rtol=0, atol=1e-5)
    params = unstack_layers(jax.device_get(state.params))
    chex.assert_trees_all_close(params, jax.device_get(expected_state.params), rtol=0, atol=1e-5)


def test_steps_lower_the_loss_and_count():
    state, metrics = run_steps(batches=BATCHES[:1] * 5)
    losses = [float(step.loss) for step in metrics]
    assert losses == sorted(losses, reverse=True)
    assert int(state.step) == 5


def test_the_loss_is_the_mean_over_the_target_tokens():
    _, metrics = run_plainly()
    loss_function = make_loss_function(EncoderDecoder(CONFIG), label_smoothing=0.1)
    batch = jax.tree.map(jnp.asarray, BATCHES[0])
    sums = loss_function(initial_state(CONFIG).params, batch, None)
    num_tokens = np.count_nonzero(BATCHES[0].target_segment_ids)
    assert int(sums.num_tokens) == int(metrics[0].num_tokens) == num_tokens
    np.testing.assert_allclose(metrics[0].loss, sums.loss / num_tokens, rtol=1e-5)
    np.testing.assert_allclose(metrics[0].nll, sums.nll / num_tokens, rtol=1e-5)


def test_what_padding_holds_does_not_matter():
    is_padding = BATCHES[0].target_segment_ids == 0
    changed = BATCHES[0]._replace(
        source=np.where(BATCHES[0].source_segment_ids == 0, 7, BATCHES[0].source),
        target=np.where(is_padding, 5, BATCHES[0].target),
        labels=np.where(is_padding, 3, BATCHES[0].labels),
    )
    assert_same(run_steps(batches=[changed, *BATCHES[1:]]), run_plainly())


def test_accumulating_four_parts_on_two_devices_is_one_step():
    assert_same(run_steps(sizes=(2, 1, 1), accumulation_steps=4), run_plainly())


def test_remat_and_scan_change_nothing():
    config = dataclasses.replace(CONFIG, scan_layers=True, remat="full")
    assert_same(run_steps(config), run_plainly())


@functools.cache
def run_with_dropout(*sizes):
    config = dataclasses.replace(CONFIG, dropout_rate=0.2, attention_dropout_rate=0.1)
    return run_steps(config, sizes=sizes)


@pytest.mark.slow
def test_eight_devices_compute_what_one_computes_with_dropout():
    assert_same(run_with_dropout(2, 2, 2), run_with_dropout(1, 1, 1))


def test_dropout_changes_the_loss():
    assert float(run_with_dropout(1, 1, 1)[1][0].loss) != float(run_plainly()[1][0].loss)


def test_a_batch_of_padding_alone_moves_nothing():
    padding = Batch(*(np.zeros_like(rows) for rows in BATCHES[0]))
    state, metrics = run_steps(batches=[padding])
    assert (int(metrics[0].num_tokens), float(metrics[0].loss)) == (0, 0.0)
    chex.assert_trees_all_equal(state.params, initial_state(CONFIG).params)


def test_parts_take_rows_in_turn():
    rows = np.arange(B)[:, None]
    parts = split_rows(Batch(*(rows,) * 8), 4)
    assert [part.ravel().tolist() for part in parts.source] == [[0, 4], [1, 5], [2, 6], [3, 7]]
