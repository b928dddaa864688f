"""One training step: loss, gradients, update; compiled once."""

from collections.abc import Callable, Collection
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from flax_transformer.array_types import Array, Float, Int, Key, Parameters
from flax_transformer.data.batch import AnyBatch
from flax_transformer.nn.products import written_gradients
from flax_transformer.parallel.activation_sharding import sharded_activations
from flax_transformer.parallel.parameter_sharding import parameter_shardings
from flax_transformer.parallel.sharding_rules import ShardingRules
from flax_transformer.training.guard import LossScaleConfig, advance_guard
from flax_transformer.training.objective import LossFunction, LossSums
from flax_transformer.training.state import TrainState
from flax_transformer.training.trained_part import join_parameters, split_parameters


class StepMetrics(NamedTuple):
    """What a step measured, over all target tokens of all devices.

    Attributes:
        loss: mean label-smoothed cross-entropy, in nats a token.
        nll: mean negative log-probability, in nats a token.
        num_tokens: target tokens.
        gradient_norm: global norm before clipping.
        num_skipped: updates left out so far, since they were not finite.
        num_skipped_in_a_row: of these, those since the last update that was made.
        loss_scale: what the loss of this step was multiplied by.
    """

    loss: Float[Array, ""]
    nll: Float[Array, ""]
    num_tokens: Int[Array, ""]
    gradient_norm: Float[Array, ""]
    num_skipped: Int[Array, ""]
    num_skipped_in_a_row: Int[Array, ""]
    loss_scale: Float[Array, ""]


TrainStep: TypeAlias = Callable[[TrainState, AnyBatch], tuple[TrainState, StepMetrics]]


def make_train_step(
    loss_function: LossFunction,
    optimizer: optax.GradientTransformation,
    *,
    mesh: Mesh,
    rules: ShardingRules = ShardingRules(),
    accumulation_steps: int = 1,
    loss_scale: LossScaleConfig = LossScaleConfig(),
    trained: Collection[str] | None = None,
) -> TrainStep:
    """Make the function of a step, to be jitted with its state donated.

    The loss is the mean over all target tokens of the global batch, whatever the number of devices
    and of parts: with ``accumulation_steps`` parts, the gradients of sums are added up and divided
    by the number of tokens once. The rows of a batch must be a multiple of it. If the loss or a
    gradient is not finite, parameters and optimizer stay as they were.

    Args:
        loss_function: sums of losses over a batch.
        optimizer: what turns gradients into updates.
        mesh: the devices.
        rules: how arrays lie on them.
        accumulation_steps: parts that a batch is computed in.
        loss_scale: scaling of the loss, for float16.
        trained: paths of the parameters that are trained; None for all. Of the others no gradient
            is taken, and they stay as they are.
    """

    def train_step(state: TrainState, batch: AnyBatch) -> tuple[TrainState, StepMetrics]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.dropout_key), state.step)
        # A mean's gradients fit into float16, where those of a sum over a batch may not.
        scale = 1.0 if loss_scale.initial is None else state.guard.loss_scale / batch.labels.size
        params, frozen = split_parameters(state.params, trained)
        gradients, sums = accumulate_gradients(
            lambda params, batch, key: loss_function(join_parameters(params, frozen), batch, key),
            params,
            batch,
            key,
            scale=scale,
            num_parts=accumulation_steps,
        )
        # A batch of padding alone has no mean: its gradients are zero, and so shall its loss be.
        num_tokens = jnp.maximum(sums.num_tokens, 1)
        # A product: XLA would make an array of quotients, which several passes read, by itself.
        share = 1.0 / (num_tokens * scale)
        gradients = jax.tree.map(lambda gradient: gradient * share, gradients)
        shardings = parameter_shardings(params, mesh, rules)
        gradients = jax.lax.with_sharding_constraint(gradients, shardings)
        gradient_norm = optax.global_norm(gradients)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer_state, params)
        is_finite = jnp.isfinite(sums.loss) & jnp.isfinite(gradient_norm)
        updated = state.replace(
            params=join_parameters(optax.apply_updates(params, updates), frozen),
            optimizer_state=optimizer_state,
        )
        new_state = jax.tree.map(lambda new, old: jnp.where(is_finite, new, old), updated, state)
        guard = advance_guard(state.guard, is_finite, loss_scale)
        metrics = StepMetrics(
            loss=sums.loss / num_tokens,
            nll=sums.nll / num_tokens,
            num_tokens=sums.num_tokens,
            gradient_norm=gradient_norm,
            num_skipped=guard.num_skipped,
            num_skipped_in_a_row=guard.num_skipped_in_a_row,
            loss_scale=state.guard.loss_scale,
        )
        return new_state.replace(step=state.step + 1, guard=guard), metrics

    def placed_train_step(state: TrainState, batch: AnyBatch) -> tuple[TrainState, StepMetrics]:
        with sharded_activations(mesh, rules), written_gradients():
            return train_step(state, batch)

    return placed_train_step


def accumulate_gradients(
    loss_function: LossFunction,
    params: Parameters,
    batch: AnyBatch,
    key: Key[Array, ""],
    *,
    scale: Float[Array, ""] | float,
    num_parts: int,
) -> tuple[Parameters, LossSums]:
    """Return the gradients of the batch's summed loss times ``scale``, float32, and the sums.

    The batch is computed in ``num_parts`` parts, one after the other.
    """

    def scaled_loss(
        params: Parameters, batch: AnyBatch, key: Key[Array, ""]
    ) -> tuple[Float[Array, ""], LossSums]:
        sums = loss_function(params, batch, key)
        return sums.loss * scale, sums

    def gradients_and_sums(batch: AnyBatch, key: Key[Array, ""]) -> tuple[Parameters, LossSums]:
        gradients, sums = jax.grad(scaled_loss, has_aux=True)(params, batch, key)
        return jax.tree.map(lambda gradient: gradient.astype(jnp.float32), gradients), sums

    if num_parts == 1:
        return gradients_and_sums(batch, key)
    parts = split_rows(batch, num_parts)
    keys = jax.random.split(key, num_parts)
    zero = jax.tree.map(
        lambda leaf: jnp.zeros(leaf.shape, leaf.dtype),
        jax.eval_shape(gradients_and_sums, batch, key),
    )
    total, _ = jax.lax.scan(
        lambda total, part: (jax.tree.map(jnp.add, total, gradients_and_sums(*part)), None),
        zero,
        (parts, keys),
    )
    return total


def split_rows(batch: AnyBatch, num_parts: int) -> AnyBatch:
    """Split ``[B, …]`` into ``[num_parts, B / num_parts, …]``, row i to part i modulo num_parts.

    Every part has rows of every device's share, so that nothing moves between devices.
    """
    return jax.tree.map(
        lambda rows: rows.reshape(-1, num_parts, *rows.shape[1:]).swapaxes(0, 1), batch
    )
