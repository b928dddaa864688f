"""Several end tokens are one that has the probability of all."""

import jax.numpy as jnp
import numpy as np
import pytest
from logit_tables import EOS, PAD, START, init_cache, make_tables, reorder, table_step

from flax_transformer.decoding.beam_search import beam_search
from flax_transformer.decoding.beam_strategy import BeamSearch
from flax_transformer.decoding.end_tokens import EndTokens
from flax_transformer.decoding.greedy import Greedy, greedy_search
from flax_transformer.decoding.sampling import Sampling, sample
from flax_transformer.errors import InputError

B, T, V = 3, 5, 6
OTHERS = (2, 5)


def search(tables, strategy):
    starts = jnp.full(len(tables), START)
    ids = {"strategy": strategy, "eos_id": EOS, "pad_id": PAD}
    match strategy:
        case Greedy():
            return greedy_search(table_step, init_cache(tables, 1), starts, **ids)
        case Sampling():
            return sample(table_step, init_cache(tables, strategy.num_samples), starts, **ids)
    cache = init_cache(tables, strategy.beam_size)
    return beam_search(table_step, reorder, cache, starts, **ids)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Greedy, {}),
        (BeamSearch, {"beam_size": 3, "num_best": 2, "length_penalty": 1.0}),
        (BeamSearch, {"beam_size": 2, "min_length": 3}),
        (Sampling, {"num_samples": 4, "seed": 7}),
    ],
)
def test_a_search_is_that_of_a_model_whose_end_token_has_the_probability_of_all(kind, options):
    tables = make_tables(3, B, T, V, impossible=0.2)
    merged = tables.copy()
    merged[..., EOS] = np.logaddexp.reduce(tables[..., (EOS, *OTHERS)], axis=-1)
    merged[..., OTHERS] = -np.inf
    actual = search(tables, kind(max_length=T, processors=(EndTokens(EOS, OTHERS),), **options))
    expected = search(merged, kind(max_length=T, **options))
    np.testing.assert_array_equal(actual.tokens, expected.tokens)
    np.testing.assert_allclose(actual.scores, expected.scores, rtol=1e-5)
    assert not np.isin(actual.tokens, OTHERS).any()
    assert (actual.lengths < T).any()


def test_where_all_end_the_probability_is_one():
    log_probs = jnp.log(jnp.full((1, 1, 3), 1 / 3, jnp.float32)) + 1e-7  # rounded upwards
    ended = EndTokens(0, (1, 2))(log_probs, jnp.zeros((1, 1, 4), int), jnp.array(0))
    assert ended.tolist() == [[[0.0, -np.inf, -np.inf]]]


@pytest.mark.parametrize(("end_id", "other_ids"), [(-1, (2,)), (0, ()), (0, (-1,)), (2, (1, 2))])
def test_what_cannot_be_end_tokens_is_refused(end_id, other_ids):
    with pytest.raises(InputError, match=r"end_id|other_ids"):
        EndTokens(end_id, other_ids)


def test_tokens_outside_the_vocabulary_are_refused():
    with pytest.raises(InputError, match="other_ids must hold tokens from 0 to 2, got 7"):
        EndTokens(0, (7,))(jnp.zeros((1, 1, 3)), jnp.zeros((1, 1, 4), int), jnp.array(0))
