"""The parameters that a run takes from another model, and those that it does not."""

import dataclasses

import jax
from jax.sharding import Mesh

from flax_transformer.array_types import Parameters
from flax_transformer.config import ExperimentConfig
from flax_transformer.errors import InputError
from flax_transformer.interop.pretrained import Pretrained
from flax_transformer.models.make_model import make_model
from flax_transformer.models.parameters import abstract_parameters
from flax_transformer.models.stack import stack_layers, unstack_layers
from flax_transformer.models.transformer_config import COMPUTATION_FIELDS, TransformerConfig
from flax_transformer.parallel.parameter_sharding import parameter_shardings
from flax_transformer.parallel.processes import say
from flax_transformer.training.state import abstract_trained_model, find_trained
from flax_transformer.tree_paths import (
    describe_differences,
    flatten_tree,
    shorten,
    unflatten_tree,
)

_REMEDY = "--training.adopt-architecture takes the architecture from there."

_OF_A_HEAD = ("head", "pooler", "num_labels")
"""Fields of what an encoder ends in, which a task brings with it."""

_OF_AN_OUTPUT = ("output_bias", "share_target_output_embedding")
"""Fields of the scoring of tokens, which a classifier has not."""


def adopt_architecture(given: TransformerConfig, found: TransformerConfig) -> TransformerConfig:
    """Return ``found`` with what of ``given`` is not of the architecture: head, dropout, dtypes.

    >>> given = TransformerConfig(dropout_rate=0.3)
    >>> config = adopt_architecture(given, TransformerConfig(model_dim=8, dropout_rate=0.0))
    >>> config.model_dim, config.dropout_rate
    (8, 0.3)
    """
    return dataclasses.replace(
        found, **{name: getattr(given, name) for name in _free_fields(given)}
    )


def take_parameters(
    config: ExperimentConfig, pretrained: Pretrained, mesh: Mesh, path: str
) -> Parameters:
    """Return those of a model's parameters that the config's model has, too; name the others.

    A classifier is taken if it is one of the same classes, a pooler if it has the same activation.

    Args:
        config: of the run; its model has the vocabulary of ``pretrained``.
        pretrained: the model to start from.
        mesh: devices that the parameters shall lie on, by the rules of ``config``.
        path: where it comes from, for messages.

    Raises:
        InputError: a parameter has another shape, the architectures differ, nothing fits, or a
            parameter that is new would be frozen.
    """
    model = make_model(config.model)
    expected = flatten_tree(abstract_parameters(model))
    params = unstack_layers(pretrained.params)
    if config.model.scan_layers:
        params = stack_layers(params)
    found = flatten_tree(jax.tree.map(lambda leaf: leaf.astype(config.model.param_dtype), params))
    others = _of_another_end(config, pretrained)
    common = {
        name for name in expected.keys() & found.keys() if name.partition("/")[0] not in others
    }
    if differences := describe_differences(
        {name: expected[name] for name in expected if name in common},
        {name: found[name] for name in found if name in common},
    ):
        raise InputError(
            f"{path} must fit the config's model, but {shorten(differences)}. {_REMEDY}"
        )
    _check_architecture(config.model, pretrained.config, path)
    new, dropped = sorted(expected.keys() - common), sorted(found.keys() - common)
    if not common:
        raise InputError(f"{path} must have parameters of the config's model, got {dropped[0]}.")
    _check_are_trained(config, new)
    if new:
        say(f"new, at random: {', '.join(new)}")
    if dropped:
        say(f"dropped: {', '.join(dropped)}")
    taken = unflatten_tree({name: found[name] for name in found if name in common})
    return jax.device_put(taken, parameter_shardings(taken, mesh, config.sharding))


def _of_another_end(config: ExperimentConfig, pretrained: Pretrained) -> set[str]:
    """Name the parts of a model's end that mean something else than those of the config's."""
    ours, theirs = config.model, pretrained.config
    classes = (ours.head, ours.num_labels, tuple(config.data.classes))
    parts = set()
    if classes != (theirs.head, theirs.num_labels, tuple(pretrained.labels)):
        parts.add("classifier")
    if ours.pooler != theirs.pooler:
        parts.add("pooler")
    return parts


def _check_architecture(given: TransformerConfig, found: TransformerConfig, path: str) -> None:
    """Refuse a difference that the shapes of parameters need not show, such as an activation."""
    free = set(_free_fields(given))
    if given.position_encoding != "learned":
        free.add("max_positions")  # there is no table of them
    for field in dataclasses.fields(given):
        ours, theirs = getattr(given, field.name), getattr(found, field.name)
        if field.name not in free and ours != theirs:
            raise InputError(
                f"model.{field.name} must be {theirs!r}, as in {path}, got {ours!r}. {_REMEDY}"
            )


def _free_fields(given: TransformerConfig) -> tuple[str, ...]:
    if given.architecture != "encoder_only":
        return COMPUTATION_FIELDS
    if given.head == "masked_lm":
        return (*COMPUTATION_FIELDS, *_OF_A_HEAD)
    return (*COMPUTATION_FIELDS, *_OF_A_HEAD, *_OF_AN_OUTPUT)


def _check_are_trained(config: ExperimentConfig, new: list[str]) -> None:
    """Refuse to freeze what is random."""
    training = config.training
    params = abstract_trained_model(make_model(config.model), training.lora)
    trained = find_trained(params, frozen=training.frozen, lora=training.lora)
    if frozen := [name for name in new if name not in trained]:
        field = "training.lora.trained" if training.lora.rank else "training.frozen"
        verb = "match" if training.lora.rank else "not match"
        raise InputError(
            f"{field} must {verb} parameters that the model to start from lacks, or they would "
            f"stay random, got {shorten(frozen)}."
        )
