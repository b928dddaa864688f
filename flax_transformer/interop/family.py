"""What there is to know about a family of public models."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from flax_transformer.interop.attributes import Attributes
from flax_transformer.interop.state_dict import Rule
from flax_transformer.models.transformer_config import TransformerConfig
from flax_transformer.nn.feed_forward import Activation

ACTIVATION_NAMES: Mapping[str, Activation] = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
}
"""Activations by the names of the ``transformers`` library."""

THEIR_ACTIVATIONS: Mapping[Activation, str] = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_tanh": "gelu_new",
    "silu": "silu",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """One family of the ``transformers`` library.

    Attributes:
        model_type: its name there.
        classes: the names of the classes that are supported.
        config_from: makes the config, from the attributes and the class; it reads every attribute
            that changes what the model computes.
        config_to: makes the attributes, of a config that the family can express.
        class_of: names the class of a config.
        rules: where each parameter lies; names without ``base_prefix``.
        base_prefix: of the names of all but the heads' tensors, where the class has a head.
        head_tensors: how the names of the heads' tensors begin.
        base_class: the class without a head, whose names have no prefix; empty if there is none.
        aliases: names under which a tensor may be stored a second time, or instead of its own, all
            with prefixes; the name of an output's table last.
        untied: the alias that may be a table of its own, whatever the attributes say.
        surplus: regular expressions of names that may be there and mean nothing to the class:
            buffers that are computed, and heads of the pre-training that the class does not have.
        computed: tensors that may be stored, but are computed here, and must be what is computed;
            each with what computes it.
        harmless: attributes that change nothing, beside those of every family.
    """

    model_type: str
    classes: tuple[str, ...]
    config_from: Callable[[Attributes, str], TransformerConfig]
    config_to: Callable[[TransformerConfig], dict[str, Any]]
    class_of: Callable[[TransformerConfig], str]
    rules: Callable[[TransformerConfig], Sequence[Rule]]
    base_prefix: str = ""
    head_tensors: tuple[str, ...] = ()
    base_class: str = ""
    aliases: Callable[[TransformerConfig], Mapping[str, str]] = lambda _: {}
    untied: str = ""
    surplus: Callable[[TransformerConfig], tuple[str, ...]] = lambda _: ()
    computed: Callable[[TransformerConfig], Mapping[str, Callable[[], np.ndarray]]] = lambda _: {}
    harmless: frozenset[str] = frozenset()

    def full_name(self, tensor: str) -> str:
        """Return the name of a tensor with the prefix that it has where the class has a head."""
        has_it = tensor.startswith((*self.head_tensors, self.base_prefix))
        return tensor if has_it else f"{self.base_prefix}{tensor}"

    def full_rules(self, config: TransformerConfig) -> list[Rule]:
        """Return the rules of a config, with full names of tensors."""
        return [
            dataclasses.replace(rule, tensor=self.full_name(rule.tensor))
            for rule in self.rules(config)
        ]


def read_activation(attributes: Attributes, name: str, default: str) -> Activation:
    """Read the activation that an attribute names."""
    activation: Activation = attributes.choose(name, ACTIVATION_NAMES, default)
    return activation
