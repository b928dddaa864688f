"""The parameters of a public model, read one tensor at a time and placed at once."""

import dataclasses
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from jax.sharding import Mesh, NamedSharding

from flax_transformer.array_types import Array, Parameters
from flax_transformer.errors import InputError
from flax_transformer.interop.family import Family
from flax_transformer.interop.family_registry import FamilyMember, read_member
from flax_transformer.interop.state_dict import tensor_shapes
from flax_transformer.interop.tensor_files import TensorFiles, open_tensors
from flax_transformer.json_config import read_json_object
from flax_transformer.models.make_model import make_model
from flax_transformer.models.parameters import abstract_parameters
from flax_transformer.models.transformer_config import ParameterDtype, TransformerConfig
from flax_transformer.parallel.parameter_sharding import parameter_spec
from flax_transformer.parallel.processes import place_whole
from flax_transformer.parallel.sharding_rules import ShardingRules
from flax_transformer.run_layout import CONFIG_FILE
from flax_transformer.tree_paths import flatten_tree, shorten, unflatten_tree

PlaceFn: TypeAlias = Callable[[str, np.ndarray], Array]
"""Puts the parameter of a path where it shall lie."""

_ROUNDING = 0.01
"""What bfloat16 may take from a number of up to 1."""

_logger = logging.getLogger(__name__)


class ReadModel(NamedTuple):
    """A public model as it was read."""

    member: FamilyMember
    params: Parameters


def make_place_fn(mesh: Mesh | None, rules: ShardingRules | None) -> PlaceFn:
    """Return what places parameters: on one device, or over ``mesh`` by ``rules``."""
    if mesh is None:
        return lambda _, array: jnp.asarray(array)
    table = rules or ShardingRules()

    def place(path: str, array: np.ndarray) -> Array:
        spec = parameter_spec(path, array.shape, mesh, table)
        return place_whole(array, NamedSharding(mesh, spec))

    return place


def read_checkpoint(directory: Path, *, dtype: ParameterDtype | None, place: PlaceFn) -> ReadModel:
    """Read a directory in the layout of the ``transformers`` library.

    Args:
        directory: with ``config.json`` and the tensors.
        dtype: of the parameters and the states; None for bfloat16 where all tensors are, else for
            float32, which holds every number of the other kinds.
        place: is given each parameter as soon as it is read.

    Raises:
        InputError: config and tensors are not those of a supported model, do not fit each other,
            or are damaged; the message is one line that names what is wrong.
    """
    member = read_member(read_json_object(directory / CONFIG_FILE), str(directory / CONFIG_FILE))
    with open_tensors(directory) as files:
        stored_as = _full_names(member.family, files)
        _check_depth(member.config, files)
        _take_copies(member, stored_as)
        config = _drop_pooler(member.family, _untie(member, files, stored_as), stored_as)
        rules = member.family.full_rules(config)
        if dtype is None:
            names = {stored_as[rule.tensor] for rule in rules if rule.tensor in stored_as}
            dtypes = {files.signatures[name].dtype for name in names}
            dtype = "bfloat16" if dtypes == {np.dtype(ml_dtypes.bfloat16)} else "float32"
        config = dataclasses.replace(config, param_dtype=dtype, compute_dtype=dtype)
        shapes = {
            path: leaf.shape
            for path, leaf in flatten_tree(abstract_parameters(make_model(config))).items()
        }
        expected = tensor_shapes(rules, shapes)
        _check_tensors(member.family, config, files, stored_as, expected)
        params = {
            rule.path: place(
                rule.path,
                _as_parameter(
                    rule.take(files.read(stored_as[rule.tensor]), shapes[rule.path]),
                    dtype,
                    f"{files.description}: {stored_as[rule.tensor]}",
                ),
            )
            for rule in rules
        }
    return ReadModel(member._replace(config=config), unflatten_tree(params))


def _full_names(family: Family, files: TensorFiles) -> dict[str, str]:
    """Map each tensor's full name of today to the name that it is stored under."""
    stored_as: dict[str, str] = {}
    for name in files.signatures:
        # What the scale and bias of a normalisation were called in the first checkpoints.
        modern = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))
        full = family.full_name(modern)
        if full in stored_as:
            raise InputError(
                f"{files.description} must hold each tensor once, got {stored_as[full]} and {name}."
            )
        stored_as[full] = name
    return stored_as


def _take_copies(member: FamilyMember, stored_as: dict[str, str]) -> None:
    """Let a tensor that is stored under a name of its copies alone be found under its own."""
    for alias, name in member.family.aliases(member.config).items():
        if name not in stored_as and alias in stored_as:
            stored_as[name] = stored_as[alias]


def _drop_pooler(
    family: Family, config: TransformerConfig, stored_as: Mapping[str, str]
) -> TransformerConfig:
    """Return the config without a pooler if it has one that no head reads and no tensor is of."""
    tensors = [r.tensor for r in family.full_rules(config) if r.path.startswith("pooler/")]
    if config.head != "none" or any(tensor in stored_as for tensor in tensors):
        return config
    return dataclasses.replace(config, pooler="none")


def _check_depth(config: TransformerConfig, files: TensorFiles) -> None:
    """Refuse more layers than tensors, before so many layers are made."""
    num_layers = config.num_encoder_layers + config.num_decoder_layers
    if num_layers > len(files.signatures):
        raise InputError(
            f"{files.description} must hold the {num_layers} layers of {CONFIG_FILE}, got "
            f"{len(files.signatures)} tensors."
        )


def _untie(
    member: FamilyMember, files: TensorFiles, stored_as: Mapping[str, str]
) -> TransformerConfig:
    """Check that what is stored twice is the same; a differing output table is one of its own."""
    config = member.config
    for alias, name in member.family.aliases(config).items():
        if alias not in stored_as or stored_as[alias] == stored_as.get(name):
            continue
        first, second = files.read(stored_as[alias]), files.read(stored_as[name])
        if first.dtype == second.dtype and first.tobytes() == second.tobytes():
            continue
        if alias != member.family.untied:
            raise InputError(
                f"{files.description}: {stored_as[alias]} must be the same as "
                f"{stored_as[name]}, which it is tied to."
            )
        config = dataclasses.replace(config, share_target_output_embedding=False)
    return config


def _check_tensors(
    family: Family,
    config: TransformerConfig,
    files: TensorFiles,
    stored_as: Mapping[str, str],
    expected: Mapping[str, tuple[int, ...]],
) -> None:
    """Raise InputError unless all tensors are there, of their shapes, and nothing unknown."""
    aliases = family.aliases(config)
    found = {full: files.signatures[name] for full, name in stored_as.items()}
    phrases = [
        f"{name} is {found[name].shape} instead of {shape}"
        for name, shape in expected.items()
        if name in found and found[name].shape != shape
    ]
    phrases += [
        f"{name} holds {found[name].dtype} instead of floating-point numbers"
        for name in expected
        if name in found and not jnp.issubdtype(found[name].dtype, jnp.floating)
    ]
    phrases += [f"{name} is missing" for name in expected if name not in found]
    computed = family.computed(config)
    phrases += [
        f"{name} is not what is computed for it"
        for name, make_table in computed.items()
        if name in found and not _is_close(files.read(stored_as[name]), make_table())
    ]
    known = expected.keys() | aliases.keys() | computed.keys()
    others = [name for name in found if name not in known]
    patterns = family.surplus(config)
    surplus = [name for name in others if any(re.fullmatch(p, name) for p in patterns)]
    phrases += [f"{name} is unexpected" for name in others if name not in surplus]
    if phrases:
        raise InputError(
            f"{files.description} must fit {CONFIG_FILE} beside it, but {shorten(phrases)}."
        )
    if surplus:
        _logger.info("%s: not used: %s", files.description, shorten(surplus))


def _is_close(stored: np.ndarray, computed: np.ndarray) -> bool:
    """Compare sines and cosines as far as half precision goes."""
    if stored.shape != computed.shape:
        return False
    return bool(np.abs(stored.astype(np.float32) - computed).max() < _ROUNDING)


def _as_parameter(array: np.ndarray, dtype: ParameterDtype, name: str) -> np.ndarray:
    # Overflow to infinity is found here, too.
    with np.errstate(over="ignore"):
        array = array.astype(jax.dtypes.canonicalize_dtype(dtype), copy=False)
    if not np.isfinite(array).all():
        raise InputError(f"{name} must hold finite values, got NaN or infinity.")
    return array
