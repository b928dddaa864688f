"""Outputs and gradients of public models are those of the transformers library."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from parity.peers import CASES, Inputs, Peer, make_inputs, torch

from flax_transformer.interop.checkpoint_writer import state_dict_of
from flax_transformer.interop.family_registry import find_member
from flax_transformer.interop.state_dict import Rule
from flax_transformer.models.decoder_only import DecoderOnly
from flax_transformer.models.encoder_decoder import EncoderDecoder

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]

TOLERANCE = 1e-4


def _ours(model: Any, params: Any, inputs: Inputs) -> list[jax.Array]:
    """Return what the model computes: logits, or states and what is pooled of them."""
    variables = {"params": params}
    inputs = jax.tree.map(jnp.asarray, inputs)
    match model:
        case EncoderDecoder():
            return [model.apply(variables, inputs.source, inputs.target, inputs.source_mask)]
        case DecoderOnly():
            return [model.apply(variables, inputs.source)]
    types = inputs.token_types if model.config.num_token_types else None
    outputs = model.apply(variables, inputs.source, inputs.source_mask, token_types=types)
    if model.config.head == "none" and model.config.pooler != "none":
        return [outputs, model.apply(variables, outputs, method="pool")]
    return [outputs]


def _masks(model: Any, inputs: Inputs, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
    """Return 1 for the rows of the outputs that stand for tokens or whole texts."""
    is_pair = isinstance(model, EncoderDecoder)
    of_tokens = inputs.target_mask if is_pair else inputs.source_mask
    masks = [of_tokens if len(shape) == 3 else np.ones(shape[0]) for shape in shapes]
    return [mask[..., None].astype(np.float32) for mask in masks]


def _theirs(model: Any, inputs: Inputs) -> list[Any]:
    arguments = {
        "input_ids": torch.tensor(inputs.source),
        "attention_mask": torch.tensor(inputs.source_mask.astype(np.int64)),
    }
    if getattr(model.config, "type_vocab_size", 0):
        arguments["token_type_ids"] = torch.tensor(inputs.token_types)
    if model.config.is_encoder_decoder:
        arguments["decoder_input_ids"] = torch.tensor(inputs.target)
    outputs = model(**arguments)
    if "logits" in outputs:
        return [outputs.logits]
    pooled = outputs.get("pooler_output")
    return [outputs.last_hidden_state] + ([] if pooled is None else [pooled])


def _assert_close(
    found: np.ndarray, expected: np.ndarray, name: str = "outputs", least: float = 0.0
) -> None:
    """Compare relative to the largest number, which is taken for ``least`` at least."""
    assert found.shape == expected.shape, name
    allowed = TOLERANCE * max(np.abs(expected).max(), least)
    assert np.abs(found - expected).max() <= allowed, name


@pytest.mark.parametrize("peer", CASES, indirect=True)
def test_outputs_and_gradients(peer: Peer) -> None:
    inputs = make_inputs(peer.model.config)
    model = peer.pretrained.model
    theirs = _theirs(peer.model, inputs)
    shapes = [tuple(output.shape) for output in theirs]
    rng = np.random.default_rng(2)
    masks = _masks(model, inputs, shapes)
    weights = [
        rng.normal(size=shape).astype(np.float32) * mask
        for shape, mask in zip(shapes, masks, strict=True)
    ]

    def loss_fn(params: Any) -> tuple[jax.Array, list[jax.Array]]:
        outputs = _ours(model, params, inputs)
        return sum(jnp.vdot(x, w) for x, w in zip(outputs, weights, strict=True)), outputs

    gradient_fn = jax.jit(jax.grad(loss_fn, has_aux=True))
    gradients, ours = gradient_fn(peer.pretrained.params)
    for output, expected, mask in zip(ours, theirs, masks, strict=True):
        _assert_close(np.asarray(output) * mask, expected.detach().numpy() * mask)
    sum((x * torch.tensor(w)).sum() for x, w in zip(theirs, weights, strict=True)).backward()
    expected = {
        name: parameter.grad.numpy()
        for name, parameter in peer.model.named_parameters()
        if parameter.grad is not None
    }
    member = find_member(peer.pretrained.config)
    found = state_dict_of(member, jax.tree.map(np.asarray, gradients))
    # What is a buffer there has no gradient.
    assert found.keys() - {"final_logits_bias"} == expected.keys()
    largest = max(np.abs(gradient).max() for gradient in expected.values())
    without_effect = {
        rule.tensor
        for rule in member.family.full_rules(member.config)
        if _has_no_effect(rule) and member.config.position_encoding != "rotary"
    }
    for name, gradient in expected.items():
        if name in without_effect:
            assert np.abs([found[name], gradient]).max() <= 1e-5 * largest, name
        else:
            _assert_close(found[name], gradient, name, least=1e-3 * largest)


def _has_no_effect(rule: Rule) -> bool:
    """Tell whether a tensor is a bias of keys, whose true gradient is zero unless it is rotated."""
    return rule.path.endswith("/key/bias") and rule.part == (0, 1)
