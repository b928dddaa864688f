"""One training step: loss, gradients, update; compiled once."""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import optax

from flax_transformer.array_types import Array, Float, Int, Key, Parameters
from flax_transformer.data.batch import Batch
from flax_transformer.models.encoder_decoder import EncoderDecoder
from flax_transformer.training.losses import cross_entropy
from flax_transformer.training.state import TrainState


class StepMetrics(NamedTuple):
    """What a step measured, over all target tokens of all devices.

    Attributes:
        loss: mean label-smoothed cross-entropy, in nats a token.
        nll: mean negative log-probability, in nats a token.
        num_tokens: target tokens.
        gradient_norm: global norm before clipping.
    """

    loss: Float[Array, ""]
    nll: Float[Array, ""]
    num_tokens: Int[Array, ""]
    gradient_norm: Float[Array, ""]


class LossSums(NamedTuple):
    """Sums over the target tokens of a batch; sums add up over parts of a batch, means do not."""

    loss: Float[Array, ""]
    nll: Float[Array, ""]
    num_tokens: Int[Array, ""]


TrainStep: TypeAlias = Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]


def loss_sums(
    model: EncoderDecoder,
    params: Parameters,
    batch: Batch,
    *,
    label_smoothing: float,
    dropout_key: Key[Array, ""] | None,
) -> LossSums:
    """Add up the losses of a batch's target tokens; without dropout if there is no key."""
    logits = model.apply(
        {"params": params},
        batch.source,
        batch.target,
        source_segment_ids=batch.source_segment_ids,
        source_positions=batch.source_positions,
        target_segment_ids=batch.target_segment_ids,
        target_positions=batch.target_positions,
        deterministic=dropout_key is None,
        rngs={} if dropout_key is None else {"dropout": dropout_key},
    )
    losses = cross_entropy(logits, jnp.asarray(batch.labels), label_smoothing=label_smoothing)
    is_token = batch.target_segment_ids != 0
    return LossSums(
        loss=jnp.where(is_token, losses.smoothed, 0.0).sum(),
        nll=jnp.where(is_token, losses.nll, 0.0).sum(),
        num_tokens=is_token.sum(),
    )


def make_train_step(
    model: EncoderDecoder,
    optimizer: optax.GradientTransformation,
    *,
    label_smoothing: float,
    accumulation_steps: int = 1,
) -> TrainStep:
    """Make the function of a step, to be jitted with its state donated.

    The loss is the mean over all target tokens of the global batch, whatever the number of devices
    and of parts: with ``accumulation_steps`` parts, the gradients of sums are added up and divided
    by the number of tokens once. The rows of a batch must be a multiple of it.
    """

    def sum_of_loss(
        params: Parameters, batch: Batch, key: Key[Array, ""]
    ) -> tuple[Float[Array, ""], LossSums]:
        sums = loss_sums(model, params, batch, label_smoothing=label_smoothing, dropout_key=key)
        return sums.loss, sums

    gradients_and_sums = jax.grad(sum_of_loss, has_aux=True)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.dropout_key), state.step)
        if accumulation_steps == 1:
            gradients, sums = gradients_and_sums(state.params, batch, key)
        else:

            def accumulate(
                total: tuple[Parameters, LossSums], part: tuple[Batch, Key[Array, ""]]
            ) -> tuple[tuple[Parameters, LossSums], None]:
                return jax.tree.map(jnp.add, total, gradients_and_sums(state.params, *part)), None

            parts = split_rows(batch, accumulation_steps)
            keys = jax.random.split(key, accumulation_steps)
            zero = (
                jax.tree.map(jnp.zeros_like, state.params),
                LossSums(jnp.zeros(()), jnp.zeros(()), jnp.zeros((), jnp.int32)),
            )
            (gradients, sums), _ = jax.lax.scan(accumulate, zero, (parts, keys))
        # A batch of padding alone has no mean: its gradients are zero, and so shall its loss be.
        num_tokens = jnp.maximum(sums.num_tokens, 1)
        gradients = jax.tree.map(lambda gradient: gradient / num_tokens, gradients)
        updates, optimizer_state = optimizer.update(gradients, state.optimizer_state, state.params)
        new_state = state.replace(
            step=state.step + 1,
            params=optax.apply_updates(state.params, updates),
            optimizer_state=optimizer_state,
        )
        metrics = StepMetrics(
            loss=sums.loss / num_tokens,
            nll=sums.nll / num_tokens,
            num_tokens=sums.num_tokens,
            gradient_norm=optax.global_norm(gradients),
        )
        return new_state, metrics

    return train_step


def split_rows(batch: Batch, num_parts: int) -> Batch:
    """Split ``[B, …]`` into ``[num_parts, B / num_parts, …]``, row i to part i modulo num_parts.

    Every part has rows of every device's share, so that nothing moves between devices.
    """
    return jax.tree.map(
        lambda rows: rows.reshape(-1, num_parts, *rows.shape[1:]).swapaxes(0, 1), batch
    )
