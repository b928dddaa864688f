"""What a checkpoint consists of, and which of them this version can read."""

import importlib.metadata
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flax_transformer.errors import InputError

STATE_ITEM = "state"
BATCHES_ITEM = "batches"
METRICS_ITEM = "scores"
ATTACHMENTS_ITEM = "files"
RANKING_ITEM = "ranking"
ABOUT_ITEM = "about"

FORMAT = 2
"""The number of the format that is written and read. Raise it when an item changes its meaning.

In every format ``manifest.sha256`` and the item ``about`` are as in this one, so that each version
can tell a damaged checkpoint from one of another version. Checkpoints of format 1 had no ``about``.
"""


def describe_writer() -> dict[str, int | str]:
    """Return what the item ``about`` holds: the format and the version of this package."""
    return {"format": FORMAT, "flax_transformer": _version()}


def encode_numbers(numbers: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return numbers as JSON has them: None for those that are not finite.

    >>> encode_numbers({"loss": 2, "dev_bleu": math.nan})
    {'loss': 2.0, 'dev_bleu': None}
    """
    return {
        name: float(number) if number is not None and math.isfinite(number) else None
        for name, number in numbers.items()
    }


def check_format(step_directory: Path) -> None:
    """Refuse a checkpoint of another format; its files must have been found undamaged.

    Raises:
        InputError: another version wrote it; the message names both formats and versions.
    """
    about = read_json_item(step_directory, ABOUT_ITEM)
    found = about.get("format", 1)
    if found != FORMAT:
        writer = about.get("flax_transformer", "before it numbered its checkpoints")
        raise InputError(
            f"checkpoint {step_directory} must be of format {FORMAT}, which flax_transformer "
            f"{_version()} reads, got format {found}, written by flax_transformer {writer}. Use "
            "the version that wrote it, or another work directory."
        )


def read_json_item(step_directory: Path, item: str) -> dict[str, Any]:
    """Read one of the items that are JSON objects; empty if it is missing or damaged."""
    try:
        stored = json.loads((step_directory / item / "metadata").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return stored if isinstance(stored, dict) else {}


def _version() -> str:
    return importlib.metadata.version("flax-transformer")
