import dataclasses
import json
from pathlib import Path
from typing import Any, Literal

import pytest

from flax_transformer.errors import InputError
from flax_transformer.json_config import config_from_json, read_json_object


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    rate: float = 0.5
    kind: Literal["a", "b"] = "a"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
    size: int
    inner: Inner = dataclasses.field(default_factory=Inner)
    labels: tuple[str, ...] = ()
    limit: int | None = None
    flag: bool = False


@pytest.mark.parametrize(
    "config",
    [
        Outer(size=3),
        Outer(size=5, inner=Inner(rate=2.0, kind="b"), labels=("x", "y"), limit=7, flag=True),
    ],
)
def test_reading_inverts_writing(config: Outer) -> None:
    values = json.loads(json.dumps(dataclasses.asdict(config)))
    assert config_from_json(Outer, values, "run") == config


def test_an_integer_is_a_float() -> None:
    rate = config_from_json(Inner, {"rate": 1}, "run").rate
    assert rate == 1.0
    assert isinstance(rate, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 3, "sise": 4}, "run must not have the key 'sise'"),
        ({"size": 3, "inner": {"rat": 1.0}}, "run.inner must not have the key 'rat'"),
        ({"size": 3, "inner": {"kind": "c"}}, r"run.inner.kind must be \('a', 'b'\), got 'c'"),
        ({"size": 3.0}, "run.size must be int, got 3.0"),
        ({"size": True}, "run.size must be int, got True"),
        ({"size": None}, "run.size must be int, got None"),
        ({"size": 3, "labels": [1]}, "run.labels must be str, got 1"),
        ({"size": 3, "inner": 4}, "run.inner must be Inner, got 4"),
        ({}, "run must be complete, got: .*size"),
    ],
)
def test_bad_values_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        config_from_json(Outer, values, "run")


def test_bad_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with pytest.raises(InputError, match=r"config\.json must be a readable file"):
        read_json_object(path)
    path.write_text('{"a": 1')
    with pytest.raises(InputError, match=r"config\.json must hold JSON"):
        read_json_object(path)
