"""The encoder alone: what each head makes of the states, and what outputs depend on."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_transformer.errors import InputError
from flax_transformer.models.encoder_only import EncoderOnly
from flax_transformer.models.parameters import abstract_parameters, init_parameters
from flax_transformer.models.transformer_config import TransformerConfig

V, B, S, D, LABELS = 31, 2, 6, 22, 5

CONFIG = TransformerConfig(
    architecture="encoder_only",
    source_vocab_size=V,
    target_vocab_size=V,
    model_dim=D,
    num_encoder_layers=2,
    num_decoder_layers=0,
    num_heads=3,
    head_dim=7,
    attention_bias=True,
    feed_forward_dim=17,
    activation="gelu",
    embedding_norm=True,
    position_encoding="learned",
    max_positions=19,
    num_token_types=3,
    scale_embedding=False,
)
MASKED_LM = dataclasses.replace(CONFIG, head="masked_lm", output_bias=True)
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, V, (B, S)))


@functools.cache
def make_params(config):
    rng = np.random.default_rng(0)
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.asarray(
            float(path[-1].key == "scale") + 0.3 * rng.normal(size=leaf.shape), leaf.dtype
        ),
        abstract_parameters(EncoderOnly(config)),
    )


@pytest.fixture(scope="module")
def states():
    """The compiled encoder, without a head."""
    return jax.jit(functools.partial(EncoderOnly(CONFIG).apply, {"params": make_params(CONFIG)}))


def test_padding_changes_nothing(states):
    mask = np.arange(S) < np.array([[S], [4]])
    changed = jnp.where(mask, TOKENS, (TOKENS + 1) % V)
    np.testing.assert_array_equal(states(TOKENS, mask)[mask], states(changed, mask)[mask])
    alone = states(TOKENS[1:, :4])
    np.testing.assert_allclose(states(TOKENS, mask)[1:, :4], alone, atol=2e-5)


def test_every_state_depends_on_every_token(states):
    for s in range(S):
        changed = TOKENS.at[:, s].set((TOKENS[:, s] + 1) % V)
        difference = np.abs(states(changed) - states(TOKENS)).max(-1)
        assert difference.min() > 1e-4


def test_packed_rows_give_what_their_texts_give_alone(states):
    segments = np.array([[1, 1, 2, 2, 2, 0]])
    positions = np.array([[0, 1, 0, 1, 2, 0]])
    packed = states(TOKENS[:1], segment_ids=segments, positions=positions)
    np.testing.assert_allclose(packed[:, :2], states(TOKENS[:1, :2]), atol=2e-5)
    np.testing.assert_allclose(packed[:, 2:5], states(TOKENS[:1, 2:5]), atol=2e-5)


def test_token_types_are_added_and_the_first_is_the_default(states):
    np.testing.assert_array_equal(states(TOKENS), states(TOKENS, token_types=np.zeros((B, S), int)))
    types = np.array([[0, 0, 1, 1, 2, 2]] * B)
    assert np.abs(states(TOKENS, token_types=types) - states(TOKENS)).min(axis=(0, 1)).max() > 1e-3


def test_masked_lm_scores_transformed_states_against_the_table():
    params = make_params(MASKED_LM)
    model = EncoderOnly(MASKED_LM)
    logits = jax.jit(functools.partial(model.apply, {"params": params}))(TOKENS)
    assert logits.shape == (B, S, V)
    assert logits.dtype == jnp.float32
    states = model.apply({"params": params}, TOKENS, method="encode")
    head = params["masked_lm_head"]
    x = jax.nn.gelu(
        states @ head["transform"]["kernel"] + head["transform"]["bias"], approximate=False
    )
    x = (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + CONFIG.norm_epsilon)
    x = x * head["norm"]["scale"] + head["norm"]["bias"]
    expected = x @ params["source_embedding"]["embedding"].T + params["output_bias"]
    np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.mark.parametrize("pooler", ["tanh", "relu"])
def test_a_text_is_classified_by_its_pooled_first_state(pooler):
    config = dataclasses.replace(
        CONFIG, head="sequence_classification", pooler=pooler, num_labels=LABELS
    )
    params, model = make_params(config), EncoderOnly(config)
    logits = jax.jit(functools.partial(model.apply, {"params": params}))(TOKENS)
    states = model.apply({"params": params}, TOKENS, method="encode")
    activate = {"tanh": np.tanh, "relu": lambda x: np.maximum(x, 0)}[pooler]
    pooled = activate(states[:, 0] @ params["pooler"]["kernel"] + params["pooler"]["bias"])
    expected = pooled @ params["classifier"]["kernel"] + params["classifier"]["bias"]
    assert logits.shape == (B, LABELS)
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    with pytest.raises(InputError, match="segment_ids must be None to classify sequences"):
        model.apply({"params": params}, TOKENS, segment_ids=jnp.ones((B, S), int))


def test_each_token_is_classified_by_its_state():
    config = dataclasses.replace(CONFIG, head="token_classification", num_labels=LABELS)
    params, model = make_params(config), EncoderOnly(config)
    logits = jax.jit(functools.partial(model.apply, {"params": params}))(TOKENS)
    states = model.apply({"params": params}, TOKENS, method="encode")
    expected = states @ params["classifier"]["kernel"] + params["classifier"]["bias"]
    assert logits.shape == (B, S, LABELS)
    np.testing.assert_allclose(logits, expected, atol=1e-4)


def test_a_pooler_has_parameters_beside_any_head():
    with_pooler = abstract_parameters(EncoderOnly(dataclasses.replace(MASKED_LM, pooler="tanh")))
    assert set(with_pooler) - set(abstract_parameters(EncoderOnly(MASKED_LM))) == {"pooler"}


def test_parameters_start_in_the_dtype_asked_for():
    config = dataclasses.replace(MASKED_LM, param_dtype="bfloat16")
    params = init_parameters(EncoderOnly(config), jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}


@pytest.mark.parametrize(
    ("changes", "arguments", "message"),
    [
        (
            {},
            {"mask": jnp.ones((B, S), bool), "segment_ids": jnp.ones((B, S), int)},
            "mask must be N",
        ),
        (
            {"num_token_types": 0},
            {"token_types": jnp.zeros((B, S), int)},
            "token_types must be None",
        ),
    ],
)
def test_what_contradicts_is_refused(changes, arguments, message):
    config = dataclasses.replace(CONFIG, **changes)
    with pytest.raises(InputError, match=message):
        EncoderOnly(config).apply({"params": make_params(config)}, TOKENS, **arguments)


def test_pooling_needs_a_pooler():
    model = EncoderOnly(CONFIG)
    with pytest.raises(InputError, match=r"config\.pooler must be tanh or relu"):
        model.apply({"params": make_params(CONFIG)}, jnp.zeros((B, S, D)), method="pool")
