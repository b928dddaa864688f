"""Continuation of text: streams and batches, and prompts that leave few positions."""

import jax
import numpy as np
import pytest

from flax_transformer.decoding.beam_strategy import BeamSearch
from flax_transformer.decoding.greedy import Greedy
from flax_transformer.evaluation.continue_text import continue_texts, stream_text
from flax_transformer.evaluation.translation import Request
from flax_transformer.models.decoder_only import DecoderOnly
from flax_transformer.models.parameters import init_parameters
from flax_transformer.models.transformer_config import TransformerConfig


@pytest.fixture(scope="module")
def language_model(tiny_translator):
    model = DecoderOnly(
        TransformerConfig(
            architecture="decoder_only",
            source_vocab_size=303,
            target_vocab_size=303,
            model_dim=14,
            num_encoder_layers=0,
            num_decoder_layers=1,
            num_heads=2,
            feed_forward_dim=19,
            max_positions=40,
            share_target_output_embedding=False,
        )
    )
    params = init_parameters(model, jax.random.key(0))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: leaf + 0.5 * rng.normal(size=leaf.shape).astype("f"), params)
    return model, params, tiny_translator.tokenizer.target


def test_a_prompt_leaves_the_positions_that_it_does_not_take(language_model):
    model, params, tokenizer = language_model
    prompts = [" ".join(["gato"] * count) for count in (1, 5, 8, 9)]
    lengths = [len(tokenizer.encode(prompt)) + 1 for prompt in prompts]
    assert lengths[1] > 16  # where the bucket is longer than the prompt
    strategy = Greedy(max_length=30, min_length=30)
    together = continue_texts(model, params, tokenizer, prompts, strategy=strategy)
    assert [found[0].num_tokens for found in together] == [
        min(30, 41 - length) for length in lengths
    ]
    for prompt, found in zip(prompts, together, strict=True):
        streamed = stream_text(model, params, tokenizer, prompt, strategy=strategy)
        assert "".join(streamed) == found[0].text


def test_continuations_begin_with_their_prefix_and_hold_their_constraints(language_model):
    model, params, tokenizer = language_model
    requests = [Request("O gato", prefix=" velho"), Request("O gato", constraints=("navio",))]
    strategy = BeamSearch(beam_size=3, max_length=12)
    prefixed, constrained = continue_texts(model, params, tokenizer, [*requests], strategy=strategy)
    assert prefixed[0].text.startswith(" velho")
    assert "navio" in constrained[0].text
