"""What outputs that have ended do to those beside them: nothing."""

import jax
import numpy as np
import pytest

from flax_transformer.decoding.generate import generate
from flax_transformer.decoding.sampling import Sampling

BOS, EOS = 1, 2


@pytest.mark.parametrize("pad_id", [-1, 11])
def test_padding_need_not_be_a_token_of_the_model(tiny, sources, pad_id):
    strategy = Sampling(max_length=8, num_samples=5, temperature=3.0)
    inside, outside = (
        generate(
            tiny.model,
            tiny.params,
            sources.tokens,
            mask=sources.mask,
            strategy=strategy,
            bos_id=BOS,
            eos_id=EOS,
            pad_id=each,
        )
        for each in (0, pad_id)
    )
    lengths = np.asarray(inside.lengths)
    assert (lengths.min(axis=1) < lengths.max(axis=1)).any()
    is_token = np.arange(8) < lengths[..., None]
    tokens = np.where(is_token, inside.tokens, pad_id)
    np.testing.assert_array_equal(outside.tokens, tokens)
    jax.tree.map(np.testing.assert_array_equal, outside[1:], inside[1:])
