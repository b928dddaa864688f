"""A batch in parts gives what the whole batch gives."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_transformer.decoding import generate as module
from flax_transformer.decoding.beam_state import NO_INPUTS
from flax_transformer.decoding.beam_strategy import BeamSearch
from flax_transformer.decoding.generate import generate
from flax_transformer.decoding.greedy import Greedy
from flax_transformer.decoding.prepare import prepare_to_decode
from flax_transformer.decoding.row_parts import BatchRows, split_rows
from flax_transformer.decoding.sampling import Sampling
from flax_transformer.models.make_model import make_model
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.nn.block_sparse_pattern import BlockSparseConfig

BOS_ID, EOS_ID, PAD_ID = 1, 2, 0
NUM_ROWS, LONGEST = 16, 37

PAIR = TransformerConfig(
    source_vocab_size=19,
    target_vocab_size=19,
    model_dim=8,
    num_encoder_layers=1,
    num_decoder_layers=1,
    num_heads=2,
    feed_forward_dim=12,
    max_positions=64,
)
ALONE = dataclasses.replace(PAIR, architecture="decoder_only", num_encoder_layers=0)

rng = np.random.default_rng(0)
LENGTHS = rng.integers(1, LONGEST, NUM_ROWS)
MASK = np.arange(LONGEST) < LENGTHS[:, None]
INPUTS = np.where(MASK, rng.integers(3, 19, (NUM_ROWS, LONGEST)), PAD_ID)


def search(config, strategy, mask=MASK, **options):
    model = make_model(config)
    inputs = (jnp.array(INPUTS),) * (2 if config.architecture == "encoder_decoder" else 1)
    params = model.init(jax.random.key(3), *inputs)["params"]
    # Sharper than at the start, so that outputs end and differ.
    params = jax.tree.map(lambda leaf: 3.0 * leaf, params)
    model, prepared = prepare_to_decode(model, params)
    return generate(
        model,
        prepared,
        INPUTS,
        mask=mask,
        strategy=strategy,
        bos_id=BOS_ID,
        eos_id=EOS_ID,
        pad_id=PAD_ID,
        **options,
    )


@pytest.mark.parametrize(
    ("config", "strategy", "options"),
    [
        (PAIR, BeamSearch(beam_size=3, num_best=2, max_length=21, coverage_penalty=0.2), {}),
        (PAIR, Sampling(max_length=9, seed=4), {"prefixes": INPUTS[:, :2]}),
        (ALONE, BeamSearch(beam_size=2, max_length=20), {}),
    ],
)
def test_parts_give_what_the_whole_batch_gives(config, strategy, options, monkeypatch):
    in_parts = [search(config, strategy, **options) for _ in range(2)]  # compiled, then in threads
    monkeypatch.setattr(module, "count_parts", lambda num_rows, num_cores: 1)
    whole = search(config, strategy, **options)
    for parts in in_parts:
        np.testing.assert_array_equal(parts.tokens, whole.tokens)
        np.testing.assert_array_equal(parts.lengths, whole.lengths)
        np.testing.assert_allclose(parts.scores, whole.scores, atol=1e-4)
        np.testing.assert_allclose(parts.token_scores, whole.token_scores, atol=1e-4)


def test_every_row_is_in_one_part_with_rows_of_like_length():
    rows = BatchRows(INPUTS, MASK, np.arange(NUM_ROWS), NO_INPUTS)
    parts = split_rows(rows, 4)
    assert sorted(np.concatenate([places for places, _ in parts])) == list(range(NUM_ROWS))
    bounds = [(LENGTHS[places].min(), LENGTHS[places].max()) for places, _ in parts]
    assert all(longer[0] >= shorter[1] for longer, shorter in itertools.pairwise(bounds))
    for places, part in parts:
        width = part.inputs.shape[1]
        assert LENGTHS[places].max() <= width
        np.testing.assert_array_equal(part.inputs, INPUTS[places, :width])
        np.testing.assert_array_equal(part.mask.sum(axis=1), LENGTHS[places])
        np.testing.assert_array_equal(part.row_numbers, places)


def test_rows_of_a_sparse_encoder_do_not_depend_on_their_neighbours():
    """The random blocks of a row depend on its padded length, which is that of the batch."""
    sparsity = BlockSparseConfig(
        block_size=2, num_global_blocks=0, num_window_blocks=1, num_random_blocks=1
    )
    config = dataclasses.replace(PAIR, encoder_sparsity=sparsity)
    strategy = Greedy(max_length=3)
    first = search(config, strategy)
    others = MASK.copy()
    others[1:, 2:] = False
    second = search(config, strategy, mask=others)
    np.testing.assert_allclose(first.token_scores[0], second.token_scores[0], atol=1e-5)


def test_limits_beyond_that_of_the_strategy_are_cut_to_it():
    strategy = Greedy(max_length=3)
    expected = search(PAIR, strategy)
    actual = search(PAIR, strategy, max_lengths=np.full(NUM_ROWS, 10_000))
    np.testing.assert_array_equal(actual.tokens, expected.tokens)
