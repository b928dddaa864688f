"""Read config dataclasses from JSON, strictly; write them with :func:`dataclasses.asdict`."""

import dataclasses
import json
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from flax_transformer.errors import InputError

Config = TypeVar("Config")


def read_json_object(path: Path) -> dict[str, Any]:
    """Read a file that holds one JSON object.

    Raises:
        InputError: the file is missing, or holds something else.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} must be a readable file, got: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} must hold JSON, got: {error}.") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} must hold a JSON object, got a {type(content).__name__}.")
    return content


def config_from_json(config_type: type[Config], values: Mapping[str, Any], name: str) -> Config:
    """Make a config dataclass from decoded JSON; fields that are not given keep their defaults.

    Nested dataclasses come from nested objects, tuples from lists.

    Args:
        config_type: the dataclass.
        values: its fields.
        name: what to call the config in messages.

    Raises:
        InputError: a key is unknown, a value has the wrong type, or the config refuses it.

    >>> from flax_transformer.models.transformer_config import TransformerConfig
    >>> config_from_json(TransformerConfig, {"model_dims": 8}, "model")
    Traceback (most recent call last):
    flax_transformer.errors.InputError: model must not have the key 'model_dims'.
    """
    hints = typing.get_type_hints(config_type)
    for key in values:
        if key not in hints:
            raise InputError(f"{name} must not have the key {key!r}.")
    fields = {key: _convert(hints[key], value, f"{name}.{key}") for key, value in values.items()}
    try:
        return config_type(**fields)
    except TypeError as error:  # a field without a default is missing
        raise InputError(f"{name} must be complete, got: {error}.") from error


def _convert(hint: Any, value: Any, name: str) -> Any:
    """Convert decoded JSON to the type of a field."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type) and isinstance(value, dict):
        return config_from_json(hint, value, name)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (hint,) = (argument for argument in arguments if argument is not type(None))
        return _convert(hint, value, name)
    if origin is tuple and isinstance(value, list):
        hints = (arguments[0],) * len(value) if arguments[-1] is Ellipsis else arguments
        if len(hints) == len(value):
            return tuple(_convert(*item, name) for item in zip(hints, value, strict=True))
    if origin is typing.Literal and value in arguments:
        return value
    if hint is float and type(value) is int:
        return float(value)
    if type(value) is hint:
        return value
    expected = arguments if origin is typing.Literal else getattr(hint, "__name__", hint)
    raise InputError(f"{name} must be {expected}, got {value!r}.")
