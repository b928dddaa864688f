"""What training minimises: the loss of a model on a batch."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import jax.numpy as jnp

from flax_transformer.array_types import Array, Float, Int, Key, Parameters
from flax_transformer.data.batch import AnyBatch, Batch, LabelledBatch
from flax_transformer.models.decoder_only import DecoderOnly
from flax_transformer.models.encoder_decoder import EncoderDecoder
from flax_transformer.models.encoder_only import EncoderOnly
from flax_transformer.models.make_model import Model
from flax_transformer.nn.embedding import OutputProjection
from flax_transformer.training.losses import cross_entropy, linear_cross_entropy

LogitsDtype: TypeAlias = Literal["float32", "bfloat16"]
Scoring: TypeAlias = tuple[Float[Array, "B T D"], OutputProjection]
"""Final states, and what they are scored with."""


class LossSums(NamedTuple):
    """Sums over the labels of a batch; sums add up over parts of a batch, means do not.

    Attributes:
        loss: label-smoothed cross-entropy, in nats.
        nll: negative log-probability, in nats.
        num_tokens: what is predicted: target tokens, or, of texts with a class, texts.
    """

    loss: Float[Array, ""]
    nll: Float[Array, ""]
    num_tokens: Int[Array, ""]


LossFunction: TypeAlias = Callable[[Parameters, AnyBatch, Key[Array, ""] | None], LossSums]
"""Adds up the losses of a batch's labels; without dropout if there is no key."""


def make_loss_function(
    model: Model,
    *,
    label_smoothing: float = 0.0,
    vocab_chunks: int = 1,
    logits_dtype: LogitsDtype = "float32",
) -> LossFunction:
    """Make the loss of predicting each label; see :func:`.losses.linear_cross_entropy`.

    The kind of the batch says what is predicted: tokens of a target (:class:`Batch`), tokens of a
    text (:class:`TextBatch`), or the class of a text (:class:`LabelledBatch`), for which
    ``vocab_chunks`` and ``logits_dtype`` do not matter.
    """

    def loss_function(
        params: Parameters, batch: AnyBatch, dropout_key: Key[Array, ""] | None
    ) -> LossSums:
        result = model.apply(
            {"params": params},
            {name: jnp.asarray(rows) for name, rows in batch._asdict().items()},
            deterministic=dropout_key is None,
            rngs={} if dropout_key is None else {"dropout": dropout_key},
            method=_choose_reading(model, batch),
        )
        if isinstance(batch, LabelledBatch):
            labels = jnp.asarray(batch.labels)[:, None]
            losses = cross_entropy(result[:, None], labels, label_smoothing=label_smoothing)
            is_label = labels >= 0
        else:
            states, projection = result
            losses = linear_cross_entropy(
                states,
                projection,
                jnp.asarray(batch.labels),
                label_smoothing=label_smoothing,
                vocab_chunks=vocab_chunks,
                product_dtype=model.config.product_dtype or model.config.compute_dtype,
                logits_dtype=logits_dtype,
            )
            where = batch.target_segment_ids if isinstance(batch, Batch) else batch.is_predicted
            is_label = where != 0
        return LossSums(
            loss=jnp.where(is_label, losses.smoothed, 0.0).sum(),
            nll=jnp.where(is_label, losses.nll, 0.0).sum(),
            num_tokens=is_label.sum(),
        )

    return loss_function


def _choose_reading(model: Model, batch: AnyBatch) -> Callable[..., Any]:
    """Return the method of ``model`` that reads such a batch."""
    if isinstance(batch, LabelledBatch):
        return _classify
    if isinstance(batch, Batch):
        return _read_pairs
    return _restore_text if isinstance(model, EncoderOnly) else _continue_text


def _read_pairs(
    model: EncoderDecoder, batch: Mapping[str, Int[Array, "B T"]], *, deterministic: bool
) -> Scoring:
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
    return states, model.output_projection()


def _continue_text(
    model: DecoderOnly, batch: Mapping[str, Int[Array, "B T"]], *, deterministic: bool
) -> Scoring:
    states = model.decode(
        batch["tokens"],
        segment_ids=batch["segment_ids"],
        positions=batch["positions"],
        deterministic=deterministic,
    )
    return states, model.output_projection()


def _restore_text(
    model: EncoderOnly, batch: Mapping[str, Int[Array, "B T"]], *, deterministic: bool
) -> Scoring:
    states = model.encode(
        batch["tokens"],
        segment_ids=batch["segment_ids"],
        positions=batch["positions"],
        deterministic=deterministic,
    )
    return model.masked_lm_head(states), model.output_projection()


def _classify(
    model: EncoderOnly, batch: Mapping[str, Int[Array, "B ..."]], *, deterministic: bool
) -> Float[Array, "B labels"]:
    return model(batch["tokens"], batch["segment_ids"] != 0, deterministic=deterministic)
