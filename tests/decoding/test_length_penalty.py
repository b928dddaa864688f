"""The length penalty against its formulas, and the bound against every continuation."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flax_transformer.decoding.length_penalty import best_score_to_come, length_divisor


@pytest.mark.parametrize("normalization", ["power", "gnmt", "none"])
def test_the_divisor_is_the_formula(normalization):
    lengths = np.array([[1, 4], [13, 100]])
    base = {"power": lengths, "gnmt": (5 + lengths) / 6, "none": 1 + 0 * lengths}[normalization]
    for alpha in (-1.0, 0.0, 0.6, 2.0):
        divisor = length_divisor(jnp.asarray(lengths), alpha=alpha, normalization=normalization)
        np.testing.assert_allclose(divisor, base**alpha, rtol=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    # Numbers below float32's normal ones may be 0 to one function and not to another.
    log_prob=st.floats(-50.0, -1e-30) | st.just(0.0),
    alpha=st.floats(-2.0, 3.0),
    normalization=st.sampled_from(["power", "gnmt", "none"]),
    first=st.integers(1, 20),
    num_more=st.integers(0, 20),
    falls=st.lists(st.floats(0.0, 5.0), min_size=21, max_size=21),
)
def test_no_continuation_is_better_than_the_bound_and_one_reaches_it(
    log_prob, alpha, normalization, first, num_more, falls
):
    options = {"alpha": alpha, "normalization": normalization}
    lengths = np.arange(first, first + num_more + 1)
    bound = best_score_to_come(
        jnp.float32(log_prob), jnp.array(lengths[0]), jnp.array(lengths[-1]), **options
    )
    divisors = np.asarray(length_divisor(jnp.asarray(lengths), **options))
    falling = log_prob - np.cumsum(falls)[: len(lengths)]
    assert (falling / divisors <= bound + 1e-5 * abs(bound)).all()
    np.testing.assert_allclose((log_prob / divisors).max(), bound, rtol=1e-5)
