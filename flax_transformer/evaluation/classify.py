"""Classes of texts, and how many of them are right."""

import functools
from collections.abc import Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from flax_transformer.array_types import Array, Bool, Float, Int, Parameters
from flax_transformer.data.sentence_pair import clean_text
from flax_transformer.data.text_windows import bracket
from flax_transformer.data.tokenizer import TranslationTokenizer
from flax_transformer.errors import InputError
from flax_transformer.evaluation.batching import make_length_mask, pad_rows, plan_batches
from flax_transformer.evaluation.sources import check_texts
from flax_transformer.models.encoder_only import EncoderOnly
from flax_transformer.parallel.mesh import batch_sharding, num_batch_shards
from flax_transformer.parallel.processes import fetch, place_whole


def classify(
    model: EncoderOnly,
    params: Parameters,
    tokenizer: TranslationTokenizer,
    texts: Sequence[str],
    *,
    max_length: int | None = None,
    batch_tokens: int = 4096,
    mesh: Mesh | None = None,
) -> Float[np.ndarray, "N labels"]:
    """Return the logits of the classes of each text, float32; the largest names the class.

    Args:
        model: with the head ``sequence_classification``.
        params: its parameters, on the devices of ``mesh`` if there is one.
        tokenizer: of the texts.
        texts: of any length; no logit depends on the other texts.
        max_length: tokens that are read at most, the start and the end token included; of a longer
            text the end is cut off. None for as many as the model has positions.
        batch_tokens: positions of a batch at most, padding included.
        mesh: devices that share the rows of each batch; every process of it must call this with
            the same texts, and gets all results. None for one device.

    Raises:
        InputError: ``max_length`` is out of range, the model has another head, or one text is given
            in place of several.
    """
    check_texts(texts, "texts")
    if model.config.head != "sequence_classification":
        raise InputError(
            f"model must have the head sequence_classification, got {model.config.head}."
        )
    limit = model.config.max_positions if max_length is None else max_length
    if not 3 <= limit <= model.config.max_positions:  # a token between the start and the end
        raise InputError(
            f"max_length must lie between 3 and max_positions = {model.config.max_positions}, "
            f"got {limit}."
        )
    encoded = tokenizer.source.encode_batch([clean_text(text) for text in texts])
    rows = [bracket(ids, tokenizer.source, max_length=limit) for ids in encoded]
    results = np.zeros((len(texts), model.config.num_labels), np.float32)
    for batch in plan_batches(
        [len(row) for row in rows],
        batch_tokens=batch_tokens,
        max_length=limit,
        row_multiple=1 if mesh is None else num_batch_shards(mesh),
    ):
        members = [rows[index] for index in batch.indices]
        shape = {"num_rows": batch.num_rows, "length": batch.length}
        tokens = pad_rows(members, **shape, pad_id=tokenizer.source.pad_id)
        mask = make_length_mask(members, **shape)
        logits = _logits(model, params, _place(tokens, mesh), _place(mask, mesh))
        results[batch.indices] = fetch(logits)[: len(members)]
    return results


def accuracy(logits: Float[np.ndarray, "N labels"], labels: Sequence[int]) -> float:
    """Return the share, in percent, of the rows whose largest logit is that of the label.

    >>> accuracy(np.array([[0.0, 1.0], [2.0, 1.0]]), [1, 1])
    50.0
    """
    return 100.0 * float(np.mean(logits.argmax(axis=-1) == np.asarray(labels)))


def _place(rows: np.ndarray, mesh: Mesh | None) -> np.ndarray | Array:
    return rows if mesh is None else place_whole(rows, batch_sharding(mesh))


@functools.partial(jax.jit, static_argnums=0)
def _logits(
    model: EncoderOnly,
    params: Parameters,
    tokens: Int[Array, "B S"],
    mask: Bool[Array, "B S"],
) -> Float[Array, "B labels"]:
    return model.apply({"params": params}, tokens, mask, deterministic=True)
