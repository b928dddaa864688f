"""A tiny translation model that the tests of several packages share."""

import functools
import itertools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from flax_transformer.array_types import Parameters
from flax_transformer.data.sentence_pair import SentencePair
from flax_transformer.data.tokenizer import TokenizerConfig, TranslationTokenizer, train_tokenizer
from flax_transformer.models.encoder_decoder import EncoderDecoder
from flax_transformer.models.transformer_config import TransformerConfig

NOUNS = {"cat": "gato", "dog": "cachorro", "bird": "pássaro", "boy": "menino", "ship": "navio"}
ADJECTIVES = {"red": "vermelho", "old": "velho", "small": "pequeno"}
VERBS = {"sleeps": "dorme", "sings": "canta", "returns tomorrow": "volta amanhã"}

_NUM_STEPS = 180


class TinyTranslator(NamedTuple):
    """A model that has nearly learned ``pairs`` by heart: outputs vary, and most end."""

    model: EncoderDecoder
    params: Parameters
    tokenizer: TranslationTokenizer
    pairs: list[SentencePair]


@functools.cache
def make_tiny_translator() -> TinyTranslator:
    """Train the model, in a few seconds, once a process."""
    pairs = [
        SentencePair(
            f"The {adjective} {noun} {verb}.",
            f"O {NOUNS[noun]} {ADJECTIVES[adjective]} {VERBS[verb]}.",
        )
        for adjective, noun, verb in itertools.product(ADJECTIVES, NOUNS, VERBS)
    ]
    tokenizer = train_tokenizer(TokenizerConfig(vocab_size=303), pairs, seed=0)
    model = EncoderDecoder(
        TransformerConfig(
            source_vocab_size=303,
            target_vocab_size=303,
            model_dim=26,
            num_encoder_layers=1,
            num_decoder_layers=1,
            num_heads=2,
            feed_forward_dim=37,
            dropout_rate=0.0,
            max_positions=61,
        )
    )
    return TinyTranslator(model, _fit(model, tokenizer, pairs), tokenizer, pairs)


def _fit(
    model: EncoderDecoder, tokenizer: TranslationTokenizer, pairs: list[SentencePair]
) -> Parameters:
    eos_id, bos_id = tokenizer.target.eos_id, tokenizer.target.bos_id
    source = _pad([[*tokenizer.source.encode(pair.source), eos_id] for pair in pairs])
    labels = _pad([[*tokenizer.target.encode(pair.target), eos_id] for pair in pairs])
    starts = jnp.full((len(pairs), 1), bos_id, jnp.int32)
    target = jnp.concatenate([starts, labels[:, :-1]], axis=1)

    def loss_fn(params: Parameters) -> jax.Array:
        logits = model.apply({"params": params}, source, target, source != 0)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return jnp.where(labels != 0, losses, 0.0).sum() / (labels != 0).sum()

    optimizer = optax.adam(optax.cosine_decay_schedule(1e-2, _NUM_STEPS))

    @jax.jit
    def fit(params: Parameters) -> Parameters:
        def step(_: int, carry: tuple[Parameters, Any]) -> tuple[Parameters, Any]:
            params, state = carry
            updates, state = optimizer.update(jax.grad(loss_fn)(params), state)
            return optax.apply_updates(params, updates), state

        return jax.lax.fori_loop(0, _NUM_STEPS, step, (params, optimizer.init(params)))[0]

    tokens = jnp.zeros((1, 1), jnp.int32)
    return fit(model.init(jax.random.key(0), tokens, tokens)["params"])


def _pad(rows: list[list[int]]) -> jax.Array:
    padded = np.zeros((len(rows), max(map(len, rows))), np.int32)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = row
    return jnp.asarray(padded)
