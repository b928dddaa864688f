import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_corpus import targets_as_text

from flax_transformer.data.batch import Batch, LabelledBatch
from flax_transformer.models.make_model import make_model
from flax_transformer.models.parameters import abstract_parameters
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.training.losses import cross_entropy
from flax_transformer.training.objective import make_loss_function

B, T, V = 2, 7, 23

ENCODER_DECODER = TransformerConfig(
    source_vocab_size=V,
    target_vocab_size=V,
    model_dim=8,
    num_encoder_layers=1,
    num_decoder_layers=1,
    num_heads=2,
    feed_forward_dim=6,
    dropout_rate=0.2,
    max_positions=T,
    activation="gelu",
)
DECODER_ONLY = dataclasses.replace(
    ENCODER_DECODER, architecture="decoder_only", num_encoder_layers=0
)


@pytest.fixture(scope="module")
def text(batch):
    return targets_as_text(batch)


@pytest.fixture(scope="module")
def batch():
    """Two rows: two pairs and padding; one pair that fills its row."""
    rng = np.random.default_rng(0)
    segments = np.array([[1, 1, 1, 2, 2, 0, 0], [1] * T], np.int32)
    positions = np.array([[0, 1, 2, 0, 1, 0, 0], range(T)], np.int32)
    source, target, labels = rng.integers(1, V, (3, B, T), dtype=np.int32)
    pair_ids = segments - 1
    return Batch(
        source, segments, positions, target, labels * (segments > 0), segments, positions, pair_ids
    )


@functools.cache
def make_params(config):
    """Make parameters whose scales are about 1 and all others about 0."""
    rng = np.random.default_rng(0)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray(
            float(path[-1].key == "scale") + 0.3 * rng.normal(size=leaf.shape), leaf.dtype
        ),
        abstract_parameters(make_model(config)),
    )


@pytest.fixture(scope="module")
def compute():
    """Return a function of a config and a batch: the sums, and the gradients of the loss."""

    @functools.cache
    def compiled(config, **options):
        loss_function = make_loss_function(make_model(config), label_smoothing=0.1, **options)

        def loss(params, batch, dropout_key):
            sums = loss_function(params, batch, dropout_key)
            return sums.loss, sums

        return jax.jit(jax.value_and_grad(loss, has_aux=True))

    def compute(config, batch, *, dropout_key=None, **options):
        (_, sums), gradients = compiled(config, **options)(make_params(config), batch, dropout_key)
        return sums, gradients

    return compute


ENCODER_ONLY = dataclasses.replace(
    ENCODER_DECODER, architecture="encoder_only", num_decoder_layers=0, output_bias=True
)
MASKED_LM = dataclasses.replace(ENCODER_ONLY, head="masked_lm")
CLASSIFIER = dataclasses.replace(
    ENCODER_ONLY, head="sequence_classification", pooler="tanh", num_labels=5
)


@pytest.mark.parametrize("config", [DECODER_ONLY, MASKED_LM], ids=["causal", "masked"])
def test_of_text_the_tokens_that_are_predicted_are_added_up(compute, text, config):
    is_predicted = np.zeros((B, T), np.int32)
    is_predicted[0, [1, 3]] = is_predicted[1, 2:] = 1
    rows = text._replace(is_predicted=is_predicted)
    sums, _ = compute(config, rows)
    logits = jax.jit(make_model(config).apply)(
        {"params": make_params(config)},
        rows.tokens,
        segment_ids=rows.segment_ids,
        positions=rows.positions,
    )
    losses = cross_entropy(logits, jnp.asarray(rows.labels), label_smoothing=0.1)
    assert int(sums.num_tokens) == is_predicted.sum() == 7
    np.testing.assert_allclose(sums.loss, losses.smoothed[is_predicted == 1].sum(), rtol=1e-5)
    np.testing.assert_allclose(sums.nll, losses.nll[is_predicted == 1].sum(), rtol=1e-5)


def test_of_texts_with_a_class_the_classes_are_added_up(compute, batch):
    is_token = np.array([[1] * 4 + [0] * 3, [0] * T], np.int32)
    rows = LabelledBatch(
        tokens=batch.target,
        segment_ids=is_token,
        positions=np.tile(np.arange(T, dtype=np.int32), (B, 1)),
        labels=np.array([3, -1], np.int32),
        pair_ids=is_token - 1,
    )
    sums, gradients = compute(CLASSIFIER, rows)
    logits = jax.jit(make_model(CLASSIFIER).apply)(
        {"params": make_params(CLASSIFIER)}, rows.tokens[:1, :4]
    )
    expected = cross_entropy(logits[:, None], jnp.array([[3]]), label_smoothing=0.1)
    assert int(sums.num_tokens) == 1
    np.testing.assert_allclose(sums.loss, expected.smoothed[0, 0], rtol=1e-5)
    np.testing.assert_allclose(sums.nll, expected.nll[0, 0], rtol=1e-5)
    chex.assert_tree_all_finite(gradients)


def test_of_pairs_the_tokens_of_the_targets_are_added_up(compute, batch):
    sums, _ = compute(ENCODER_DECODER, batch)
    logits = jax.jit(make_model(ENCODER_DECODER).apply)(
        {"params": make_params(ENCODER_DECODER)},
        batch.source,
        batch.target,
        source_segment_ids=batch.source_segment_ids,
        source_positions=batch.source_positions,
        target_segment_ids=batch.target_segment_ids,
        target_positions=batch.target_positions,
    )
    losses = cross_entropy(logits, jnp.asarray(batch.labels), label_smoothing=0.1)
    is_token = batch.target_segment_ids > 0
    assert int(sums.num_tokens) == is_token.sum() == 12
    np.testing.assert_allclose(sums.loss, losses.smoothed[is_token].sum(), rtol=1e-5)
    np.testing.assert_allclose(sums.nll, losses.nll[is_token].sum(), rtol=1e-5)


def test_parts_of_the_vocabulary_change_neither_loss_nor_gradients(compute, text):
    expected = compute(DECODER_ONLY, text)
    actual = compute(DECODER_ONLY, text, vocab_chunks=3)  # 23 is no multiple
    chex.assert_trees_all_close(actual, expected, rtol=1e-5, atol=1e-5)


def test_low_precision_logits_are_near(compute, text):
    expected, _ = compute(DECODER_ONLY, text)
    actual, gradients = compute(DECODER_ONLY, text, logits_dtype="bfloat16")
    assert actual.loss.dtype == jnp.float32
    np.testing.assert_allclose(actual.loss, expected.loss, rtol=1e-2)
    assert float(actual.loss) != float(expected.loss)
    chex.assert_tree_all_finite(gradients)


def test_a_key_turns_dropout_on(compute, text):
    losses = [
        float(compute(DECODER_ONLY, text, dropout_key=key)[0].loss)
        for key in (None, jax.random.key(0), jax.random.key(1), jax.random.key(0))
    ]
    assert len(set(losses)) == 3
    assert losses[1] == losses[3]
