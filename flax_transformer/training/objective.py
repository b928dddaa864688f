"""What training minimises: the loss of a model on a batch."""

from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple, TypeAlias

import jax.numpy as jnp

from flax_transformer.array_types import Array, Float, Int, Key, Parameters
from flax_transformer.data.batch import Batch
from flax_transformer.models.decoder_only import DecoderOnly
from flax_transformer.models.encoder_decoder import EncoderDecoder
from flax_transformer.models.make_model import Model
from flax_transformer.training.losses import linear_cross_entropy

LogitsDtype: TypeAlias = Literal["float32", "bfloat16"]


class LossSums(NamedTuple):
    """Sums over the target tokens of a batch; sums add up over parts of a batch, means do not.

    Attributes:
        loss: label-smoothed cross-entropy, in nats.
        nll: negative log-probability, in nats.
        num_tokens: target tokens.
    """

    loss: Float[Array, ""]
    nll: Float[Array, ""]
    num_tokens: Int[Array, ""]


LossFunction: TypeAlias = Callable[[Parameters, Batch, Key[Array, ""] | None], LossSums]
"""Adds up the losses of a batch's target tokens; without dropout if there is no key."""


def make_loss_function(
    model: Model,
    *,
    label_smoothing: float = 0.0,
    vocab_chunks: int = 1,
    logits_dtype: LogitsDtype = "float32",
) -> LossFunction:
    """Make the loss of predicting each target token; see :func:`.losses.linear_cross_entropy`.

    An encoder-decoder reads the batch's source; a decoder alone reads its target only.
    """

    def loss_function(
        params: Parameters, batch: Batch, dropout_key: Key[Array, ""] | None
    ) -> LossSums:
        states, table = model.apply(
            {"params": params},
            {name: jnp.asarray(rows) for name, rows in batch._asdict().items()},
            deterministic=dropout_key is None,
            rngs={} if dropout_key is None else {"dropout": dropout_key},
            method=_read_pairs if isinstance(model, EncoderDecoder) else _read_targets,
        )
        losses = linear_cross_entropy(
            states,
            table,
            jnp.asarray(batch.labels),
            label_smoothing=label_smoothing,
            vocab_chunks=vocab_chunks,
            product_dtype=model.config.product_dtype or model.config.compute_dtype,
            logits_dtype=logits_dtype,
        )
        is_token = batch.target_segment_ids != 0
        return LossSums(
            loss=jnp.where(is_token, losses.smoothed, 0.0).sum(),
            nll=jnp.where(is_token, losses.nll, 0.0).sum(),
            num_tokens=is_token.sum(),
        )

    return loss_function


def _read_pairs(
    model: EncoderDecoder, batch: Mapping[str, Int[Array, "B T"]], *, deterministic: bool
) -> tuple[Float[Array, "B T D"], Float[Array, "V D"]]:
    encoded = model.encode(
        batch["source"],
        segment_ids=batch["source_segment_ids"],
        positions=batch["source_positions"],
        deterministic=deterministic,
    )
    states = model.decode(
        batch["target"],
        encoded,
        source_segment_ids=batch["source_segment_ids"],
        segment_ids=batch["target_segment_ids"],
        positions=batch["target_positions"],
        deterministic=deterministic,
    )
    return states, model.output_table()


def _read_targets(
    model: DecoderOnly, batch: Mapping[str, Int[Array, "B T"]], *, deterministic: bool
) -> tuple[Float[Array, "B T D"], Float[Array, "V D"]]:
    states = model.decode(
        batch["target"],
        segment_ids=batch["target_segment_ids"],
        positions=batch["target_positions"],
        deterministic=deterministic,
    )
    return states, model.output_table()
