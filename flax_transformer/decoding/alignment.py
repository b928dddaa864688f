"""Which positions of the source an output looks at."""

import functools

import jax
import jax.numpy as jnp

from flax_transformer.array_types import Array, Bool, Float, Int
from flax_transformer.decoding.prepare import PreparedParameters
from flax_transformer.models.decoder_cache import DecoderCache
from flax_transformer.models.encoder_decoder import EncoderDecoder


@functools.partial(jax.jit, static_argnames=("model", "bos_id"))
def attend_to_source(
    model: EncoderDecoder,
    params: PreparedParameters,
    source: Int[Array, "B S"],
    source_mask: Bool[Array, "B S"] | None,
    tokens: Int[Array, "B T"],
    bos_id: int,
) -> Float[Array, "B T S"]:
    """Return the attention to the source with which each token is predicted.

    That of the last layer, the mean over its heads. Reading the outputs again costs little beside
    the search, which then need not carry this for hypotheses that it drops.

    Args:
        model: the model; see :func:`.prepare_to_decode`.
        params: its prepared parameters.
        source: source tokens, padded.
        source_mask: True on the source's tokens; None where there is no padding.
        tokens: outputs, padded.
        bos_id: token that the decoder reads first.
    """
    variables = {"params": params.model}
    encoded = model.apply(variables, source, source_mask, method="encode")
    cache = model.apply(
        variables,
        encoded,
        source_mask,
        max_length=tokens.shape[1],
        keep_cross_weights=True,
        method="init_cache",
    )

    def step(
        cache: DecoderCache, read: Int[Array, " B"]
    ) -> tuple[DecoderCache, Float[Array, "B S"]]:
        _, cache = model.apply(variables, read[:, None], cache, method="step_states")
        return cache, jnp.asarray(cache.cross_weights)[:, 0]

    starts = jnp.full((tokens.shape[0], 1), bos_id, tokens.dtype)
    read = jnp.concatenate([starts, tokens[:, :-1]], axis=1)
    return jax.lax.scan(step, cache, read.T)[1].swapaxes(0, 1)
