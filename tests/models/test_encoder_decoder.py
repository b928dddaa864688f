"""The whole model: against NumPy, and what its outputs depend on."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import numpy_reference
import pytest

from flax_transformer.errors import InputError

VARIANTS = {
    "paper": {},
    "tied": {
        "source_vocab_size": 31,
        "share_source_target_embedding": True,
        "share_target_output_embedding": True,
    },
    "pre-norm": {
        "pre_norm": True,
        "activation": "gelu",
        "gated_feed_forward": True,
        "position_encoding": "learned",
        "scale_embedding": False,
        "share_target_output_embedding": True,
        "num_encoder_layers": 2,
        "num_decoder_layers": 1,
    },
    "halves": {"sinusoid_layout": "halves", "head_dim": None, "num_heads": 2},
}


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_are_the_formulas(make_tiny, pairs, variant):
    config, model, params = make_tiny(**VARIANTS[variant])
    logits = jax.jit(model.apply)({"params": params}, *pairs[:3])
    assert logits.dtype == jnp.float32
    assert logits.shape == (*pairs.target.shape, config.target_vocab_size)
    lengths = zip(pairs.source_lengths, pairs.target_lengths, strict=True)
    for b, (source_length, target_length) in enumerate(lengths):
        expected = numpy_reference.transformer(
            params, pairs.source[b, :source_length], pairs.target[b, :target_length], config
        )
        np.testing.assert_allclose(logits[b, :target_length], expected, rtol=1e-4, atol=1e-4)


def test_logits_do_not_depend_on_later_target_tokens(tiny):
    # One id a position, and no table but the decoder's input: a row of it is a position.
    source, target = jnp.array([[3, 1, 4]]), jnp.array([[2, 7, 1, 8, 5]])
    length = target.shape[1]
    weights = jax.random.normal(jax.random.key(0), (tiny.config.target_vocab_size,))

    def projected_logits(table):
        params = {**tiny.params, "target_embedding": {"embedding": table}}
        return (tiny.model.apply({"params": params}, source, target) @ weights)[0]

    table = jnp.asarray(tiny.params["target_embedding"]["embedding"])
    jacobian = jax.jit(jax.jacrev(projected_logits))(table)[:, target[0]]
    influence = np.abs(jacobian).max(-1)
    for t in range(length):
        np.testing.assert_array_equal(influence[t, t + 1 :], 0.0)
        assert influence[t, : t + 1].min() > 1e-4


def test_every_source_token_matters_to_every_target_position(tiny, logits):
    source, target = np.array([[3, 1, 4]]), np.array([[2, 7, 1, 8, 5]])
    expected = logits(source, target)
    for s in range(source.shape[1]):
        changed = source.copy()
        changed[0, s] += 1
        assert np.abs(logits(changed, target) - expected).max(-1).min() > 1e-4


@pytest.fixture(scope="module")
def packed(pairs):
    """Two rows: the pairs 1 and 2 and some padding; padding between and pair 0."""
    source, target = np.full((2, 11), 9), np.full((2, 8), 9)
    segments = [np.zeros_like(source), np.zeros_like(target)]
    positions = [np.zeros_like(source), np.zeros_like(target)]
    places = ((1, 0, 1, 0, 0), (2, 0, 2, 2, 3), (0, 1, 1, 4, 2))
    for pair, row, segment, source_start, target_start in places:
        sides = (
            (source, pairs.source, source_start, pairs.source_lengths),
            (target, pairs.target, target_start, pairs.target_lengths),
        )
        for i, (rows, tokens, start, lengths) in enumerate(sides):
            span = (row, slice(start, start + lengths[pair]))
            rows[span] = tokens[pair, : lengths[pair]]
            segments[i][span] = segment
            positions[i][span] = np.arange(lengths[pair])
    options = {
        "source_segment_ids": segments[0],
        "source_positions": positions[0],
        "target_segment_ids": segments[1],
        "target_positions": positions[1],
    }
    return *jax.tree.map(jnp.asarray, (source, target, options)), places


def test_packed_pairs_have_the_logits_of_each_alone(logits, pairs, packed):
    source, target, options, places = packed
    alone = logits(*pairs[:3])
    together = logits(source, target, **options)
    for pair, row, _, _, start in places:
        length = pairs.target_lengths[pair]
        np.testing.assert_allclose(
            together[row, start : start + length], alone[pair, :length], atol=2e-5
        )


def test_padding_of_packed_rows_is_finite(logits, packed):
    source, target, options, _ = packed
    assert bool(jnp.isfinite(logits(source, target, **options)).all())


def test_gradients_are_finite_where_a_query_attends_nowhere(tiny, packed):
    source, target, options, _ = packed
    is_label = (options["target_segment_ids"] > 0)[..., None]

    def loss(params):
        logits = tiny.model.apply({"params": params}, source, target, **options)
        return jnp.where(is_label, jax.nn.log_softmax(logits), 0.0).sum()

    chex.assert_tree_all_finite(jax.jit(jax.grad(loss))(tiny.params))


def test_padding_does_not_matter(logits, pairs):
    expected = logits(*pairs[:3])
    other_source = np.where(pairs.source_mask, pairs.source, 28)
    is_target = np.arange(pairs.target.shape[1])[None] < np.array(pairs.target_lengths)[:, None]
    other_target = np.where(is_target, pairs.target, 30)
    actual = logits(other_source, other_target, pairs.source_mask)
    for b, length in enumerate(pairs.target_lengths):
        np.testing.assert_array_equal(actual[b, :length], expected[b, :length])


def test_more_padding_does_not_matter(logits, pairs):
    def widen(rows):
        return np.pad(rows, ((0, 0), (0, 4)))

    expected = logits(*pairs[:3])
    actual = logits(widen(pairs.source), widen(pairs.target), widen(pairs.source_mask))
    np.testing.assert_allclose(actual[:, : expected.shape[1]], expected, atol=2e-5)


def test_neighbours_do_not_matter(logits, pairs):
    expected = logits(*pairs[:3])
    for b in range(len(pairs.source)):
        alone = [rows[b : b + 1] for rows in pairs[:3]]
        np.testing.assert_allclose(logits(*alone)[0], expected[b], atol=2e-5)
    backwards = [rows[::-1] for rows in pairs[:3]]
    np.testing.assert_allclose(logits(*backwards)[::-1], expected, atol=2e-5)


def test_a_source_of_padding_alone_is_finite(logits, pairs):
    nothing = jnp.zeros_like(pairs.source_mask)
    assert bool(jnp.isfinite(logits(pairs.source, pairs.target, nothing)).all())


def test_encode_then_decode_is_the_whole(tiny, logits, pairs):
    variables = {"params": tiny.params}
    encoded = tiny.model.apply(variables, pairs.source, pairs.source_mask, method="encode")
    states = tiny.model.apply(variables, pairs.target, encoded, pairs.source_mask, method="decode")
    decoded = tiny.model.apply(variables, states, method="logits")
    np.testing.assert_allclose(decoded, logits(*pairs[:3]), atol=2e-5)


def test_bfloat16_is_close_and_its_logits_float32(make_tiny, logits, pairs):
    low = make_tiny(compute_dtype="bfloat16")
    actual = jax.jit(low.model.apply)({"params": low.params}, *pairs[:3])
    expected = logits(*pairs[:3])
    assert actual.dtype == jnp.float32
    assert float(jnp.abs(actual - expected).max()) < 0.1 * float(expected.std())
    assert not bool((actual == expected).all())


@pytest.mark.parametrize("scan_layers", [False, True])
def test_parameters_are_float32_in_every_dtype(make_tiny, scan_layers):
    low = make_tiny(compute_dtype="bfloat16", scan_layers=scan_layers)
    tokens = jnp.zeros((1, 1), int)
    shapes = jax.eval_shape(lambda: low.model.init(jax.random.key(0), tokens, tokens))
    assert {leaf.dtype for leaf in jax.tree.leaves(shapes)} == {jnp.dtype("float32")}


def test_dropout_follows_its_key_and_needs_one_trace(make_tiny, pairs):
    chex.clear_trace_counter()
    tiny = make_tiny(dropout_rate=0.2, attention_dropout_rate=0.3, feed_forward_dropout_rate=0.4)

    @jax.jit
    @chex.assert_max_traces(n=1)
    def logits(params, key, *batch):
        return tiny.model.apply(
            {"params": params}, *batch, deterministic=False, rngs={"dropout": key}
        )

    first, again, other = (
        logits(tiny.params, jax.random.key(seed), *pairs[:3]) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert float(jnp.abs(first - other).max(-1).min()) > 0.0


@pytest.mark.parametrize(("side", "vocab_size"), [("source", 29), ("target", 31)])
@pytest.mark.parametrize("outside", ["below", "above"])
def test_an_id_outside_the_vocabulary_is_not_silent(logits, pairs, side, vocab_size, outside):
    rows = {"source": pairs.source, "target": pairs.target}
    rows[side] = rows[side].at[0, 0].set(-1 if outside == "below" else vocab_size)
    outputs = logits(rows["source"], rows["target"], pairs.source_mask)
    assert bool(jnp.isnan(outputs[0]).all())
    assert bool(jnp.isfinite(outputs[1:]).all())


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_row_longer_than_max_positions_is_refused(tiny, side):
    rows = {"source": jnp.zeros((1, 2), int), "target": jnp.zeros((1, 2), int)}
    rows[side] = jnp.zeros((1, 20), int)
    with pytest.raises(InputError, match=r"at most max_positions = 19 tokens long, got 20"):
        tiny.model.apply({"params": tiny.params}, rows["source"], rows["target"])


def test_masks_and_segment_ids_are_not_mixed(tiny, pairs):
    variables = {"params": tiny.params}
    source_ids, target_ids = jnp.ones_like(pairs.source), jnp.ones_like(pairs.target)
    ids = {"source_segment_ids": source_ids, "target_segment_ids": target_ids}
    with pytest.raises(InputError, match="source_mask must be None when segment ids are given"):
        tiny.model.apply(variables, *pairs[:3], **ids)
    encoded = jnp.zeros((*pairs.source.shape, tiny.config.model_dim))
    with pytest.raises(InputError, match="source_mask must be None when segment ids are given"):
        tiny.model.apply(
            variables,
            pairs.target,
            encoded,
            pairs.source_mask,
            source_segment_ids=source_ids,
            segment_ids=target_ids,
            method="decode",
        )
    for name in ids:
        with pytest.raises(InputError, match="both source and target, or for none"):
            tiny.model.apply(variables, *pairs[:2], **{name: ids[name]})
