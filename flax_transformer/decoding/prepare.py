"""Parameters as the steps of decoding read them fastest."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from flax_transformer.array_types import Array, Float, Parameters
from flax_transformer.errors import InputError
from flax_transformer.models.decoder_only import DecoderOnly
from flax_transformer.models.encoder_decoder import EncoderDecoder
from flax_transformer.models.stack import unstack_layers
from flax_transformer.nn.products import einsum
from flax_transformer.nn.quantization import Int8Weights, quantize
from flax_transformer.parallel.processes import fetch

DecodingModel: TypeAlias = EncoderDecoder | DecoderOnly
Precision: TypeAlias = Literal["float32", "bfloat16", "int8"]


Models: TypeAlias = DecodingModel | tuple[DecodingModel, ...]
"""A model, or several that decode together."""


class PreparedParameters(NamedTuple):
    """Parameters for decoding.

    Attributes:
        model: those of the model, of separate layers.
        output_kernel: the output's vectors of all tokens, a column each: a step multiplies with
            them much faster than with the rows of a table.
        output_bias: a number for each token; None without.
    """

    model: Parameters
    output_kernel: Float[Array, "D V"] | Int8Weights
    output_bias: Float[Array, " V"] | None


AnyParameters: TypeAlias = Parameters | PreparedParameters
"""Parameters of a model, prepared or not."""


def prepare_to_decode(
    model: DecodingModel,
    params: Parameters,
    *,
    precision: Precision | None = None,
) -> tuple[DecodingModel, PreparedParameters]:
    """Return a model and parameters with which :func:`.generate` need not prepare any in a call.

    Args:
        model: an encoder–decoder or a decoder alone.
        params: its parameters; where they lie on a mesh, the result does.
        precision: of the weights, as they are stored and multiplied. ``"bfloat16"`` multiplies
            numbers of 16 bits and adds up in 32; ``"int8"`` multiplies integers (see
            :mod:`flax_transformer.nn.quantization`). Embeddings that are looked up, biases,
            normalisation and attention are not rounded to 8 bits. None leaves all as it is.

    Raises:
        InputError: the model has no decoder, ``precision`` is unknown, or the parameters are
            prepared already.
    """
    if not isinstance(model, EncoderDecoder | DecoderOnly):
        raise InputError(f"model must have a decoder, got {type(model).__name__}.")
    if isinstance(params, PreparedParameters):
        raise InputError("params must be those of the model, got parameters that are prepared.")
    if precision not in (None, "float32", "bfloat16", "int8"):
        raise InputError(f"precision must be float32, bfloat16 or int8, got {precision!r}.")
    config = dataclasses.replace(model.config, scan_layers=False)
    if precision == "bfloat16":
        config = dataclasses.replace(config, product_dtype="bfloat16")
    elif precision is not None:
        config = dataclasses.replace(config, product_dtype="float32")
    prepared_model = type(model)(config)
    prepared = _prepare(prepared_model, params, precision)
    if prepared.output_bias is not None and not fetch(prepared.output_bias).any():
        # To add zeros to all logits takes a few hundredths of a step.
        prepared = prepared._replace(output_bias=None)
    return prepared_model, prepared


def prepare_all(
    models: Models, params: Any
) -> tuple[tuple[DecodingModel, ...], tuple[PreparedParameters, ...]]:
    """Return the models and parameters, each prepared if it is not yet.

    Args:
        models: one model, or a tuple.
        params: its parameters, or a tuple of those of each.

    Raises:
        InputError: there is no model, there are not as many parameters, or the models do not write
            in one vocabulary.
    """
    all_models: tuple[DecodingModel, ...] = models if isinstance(models, tuple) else (models,)
    all_params: tuple[Any, ...] = params if isinstance(models, tuple) else (params,)
    if isinstance(models, tuple) and isinstance(params, PreparedParameters):
        raise InputError("params must be a tuple of those of each model, got those of one.")
    if not all_models or len(all_models) != len(all_params):
        raise InputError(
            "models and params must be equally many, and at least one, got "
            f"{len(all_models)} and {len(all_params)}."
        )
    prepared = [
        (model, of_model)
        if isinstance(of_model, PreparedParameters)
        else prepare_to_decode(model, of_model)
        for model, of_model in zip(all_models, all_params, strict=True)
    ]
    sizes = sorted({model.config.target_vocab_size for model in all_models})
    if len(sizes) > 1 or len({type(model) for model in all_models}) > 1:
        raise InputError(
            "models of an ensemble must be of one architecture and one target vocabulary, got "
            f"sizes {', '.join(map(str, sizes))}."
        )
    return tuple(model for model, _ in prepared), tuple(of_model for _, of_model in prepared)


def output_logits(
    states: Float[Array, "B W D"], params: PreparedParameters, model: DecodingModel
) -> Float[Array, "B W V"]:
    """Return the float32 logits of the token after each state."""
    logits = einsum(
        "bwd,dv->bwv",
        states,
        params.output_kernel,
        dtype=model.config.product_dtype or model.config.compute_dtype,
        result_dtype=jnp.float32,
    )
    return logits if params.output_bias is None else logits + params.output_bias


@functools.partial(jax.jit, static_argnames=("model", "precision"))
def _prepare(
    model: DecodingModel, params: Parameters, precision: Precision | None
) -> PreparedParameters:
    params = unstack_layers(params)
    table, bias = model.apply({"params": params}, method="output_projection")
    kept = {name: child for name, child in params.items() if name != "output_embedding"}
    kernel = table.T
    if precision is None:
        return PreparedParameters(kept, kernel, bias)
    if precision == "int8":
        return PreparedParameters(_quantize_kernels(kept), quantize(kernel, num_in_axes=1), bias)
    kept, kernel = jax.tree.map(
        lambda leaf: leaf.astype(precision) if leaf.ndim > 1 else leaf, (kept, kernel)
    )
    return PreparedParameters(kept, kernel, bias)


def _quantize_kernels(params: Parameters) -> dict[str, Any]:
    """Quantize the kernels of all linear maps."""
    quantized: dict[str, Any] = {}
    for name, child in params.items():
        if isinstance(child, Mapping):
            if "kernel" in child:
                # Attention joins its heads again: there, two axes are summed over.
                num_in_axes = 2 if name == "output" and child["kernel"].ndim == 3 else 1
                child = {**child, "kernel": quantize(child["kernel"], num_in_axes=num_in_axes)}
                quantized[name] = child
            else:
                quantized[name] = _quantize_kernels(child)
        else:
            quantized[name] = child
    return quantized
