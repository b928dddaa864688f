"""Lengths relative to the source: how they are rounded and what is refused."""

import fractions
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flax_transformer.decoding.length_limits import LengthLimits, relative_lengths
from flax_transformer.errors import InputError

SOURCES = np.arange(1, 61)


@settings(max_examples=50, deadline=None)
@given(
    hundredths=st.tuples(st.integers(0, 300), st.integers(0, 300)).map(sorted),
    max_length=st.integers(1, 200),
)
def test_limits_are_the_exact_products_rounded_inwards(hundredths, max_length):
    shortest, longest = hundredths
    limits = LengthLimits(
        max_length=max_length,
        min_length_ratio=shortest / 100,
        max_length_ratio=max(1, longest) / 100,
    )
    at_least, at_most = relative_lengths(limits, SOURCES)
    for source, low, high in zip(SOURCES.tolist(), at_least, at_most, strict=True):
        # In fractions: in floats, 1.1 * 10 is more than 11.
        low_product = fractions.Fraction(shortest, 100) * source
        high_product = fractions.Fraction(max(1, longest), 100) * source
        assert low == min(math.ceil(low_product), max_length)
        assert high == min(max(1, math.floor(high_product)), max_length)


def test_without_a_ratio_there_are_no_limits_of_rows():
    assert relative_lengths(LengthLimits(), SOURCES) == (None, None)
    assert relative_lengths(LengthLimits(max_length_ratio=1.0), SOURCES)[0] is None
    assert relative_lengths(LengthLimits(min_length_ratio=1.0), SOURCES)[1] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_length_ratio": 0.0}, r"max_length_ratio must be positive and finite, got 0.0"),
        ({"max_length_ratio": math.inf}, r"max_length_ratio must be positive and finite, got inf"),
        ({"min_length_ratio": -1.0}, r"min_length_ratio must be finite and not negative, got -1.0"),
        ({"min_length_ratio": math.nan}, r"min_length_ratio must be finite .* got nan"),
        (
            {"min_length_ratio": 2.0, "max_length_ratio": 1.5},
            r"min_length_ratio must be at most max_length_ratio = 1.5, got 2.0",
        ),
    ],
)
def test_ratios_that_cannot_be_met_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        LengthLimits(**options)
