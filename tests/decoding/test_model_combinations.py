"""Several models that decode together, and what their combination is without each of them."""

import jax
import numpy as np
import pytest

from flax_transformer.decoding.beam_strategy import BeamSearch
from flax_transformer.decoding.generate import generate
from flax_transformer.decoding.model_combinations import AVERAGE, Contrast, Ensemble
from flax_transformer.errors import InputError

PAD, BOS, EOS = 0, 1, 2


@pytest.fixture(scope="module")
def others(tiny):
    rng = np.random.default_rng(2)
    return jax.tree.map(lambda leaf: leaf + 0.2 * rng.normal(size=leaf.shape).astype("f"), tiny[2])


def run(tiny, sources, params, combine=AVERAGE):
    return generate(
        (tiny.model,) * len(params),
        params,
        sources.tokens,
        mask=sources.mask,
        strategy=BeamSearch(beam_size=2, max_length=5),
        combine=combine,
        bos_id=BOS,
        eos_id=EOS,
        pad_id=PAD,
    )


def assert_close(first, second):
    np.testing.assert_array_equal(first.tokens, second.tokens)
    np.testing.assert_allclose(first.scores, second.scores, atol=1e-4)


def test_a_weight_far_above_the_others_is_a_model_alone(tiny, sources, others):
    params = (tiny.params, others)
    second = run(tiny, sources, params, Ensemble(weights=(1e-7, 1.0)))
    alone = run(tiny, sources, (others,))
    assert_close(second, alone)
    assert (np.asarray(run(tiny, sources, params).tokens) != np.asarray(alone.tokens)).any()


def test_a_contrast_without_strength_is_the_first_model(tiny, sources, others):
    contrast = Contrast(strength=0.0, plausibility=1e-30)
    alone = run(tiny, sources, (tiny.params,))
    assert_close(run(tiny, sources, (tiny.params, others), contrast), alone)
    stronger = run(tiny, sources, (tiny.params, others), Contrast())
    assert (np.asarray(stronger.tokens) != np.asarray(alone.tokens)).any()


def test_options_that_cannot_work_are_refused(tiny, sources, others):
    for make, message in (
        (lambda: Contrast(strength=-1.0), "strength must be"),
        (lambda: Contrast(plausibility=0.0), "plausibility must"),
        (lambda: Contrast(amateur_temperature=0.0), "amateur_temperature must"),
        (lambda: Ensemble(weights=(0.0, 1.0)), "weights must be positive"),
        (lambda: Ensemble(average="mean"), "average must be one of"),
    ):
        with pytest.raises(InputError, match=message):
            make()
    with pytest.raises(InputError, match="two models to contrast, got 1"):
        run(tiny, sources, (tiny.params,), Contrast())
    with pytest.raises(InputError, match="as many as models, 2, got 3"):
        run(tiny, sources, (tiny.params, others), Ensemble(weights=(1.0, 1.0, 1.0)))
