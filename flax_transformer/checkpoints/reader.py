"""Read the checkpoints of a run: one directory per step, each complete in itself.

``<directory>/<step>/`` holds the items ``state`` (arrays), ``batches`` (the position in the data),
``scores`` (the metrics of the step), ``ranking`` (the scores of the other checkpoints), ``files``
(small files of the run) and ``about`` (the format), and ``manifest.sha256`` over their files. It
restores wherever it has been moved to.
Reading needs no lock and changes nothing: it is safe while a training process writes.
"""

import json
import math
from pathlib import Path
from typing import Any

import grain
import jax
import orbax.checkpoint as ocp
from etils import epath

from flax_transformer.array_types import Parameters
from flax_transformer.checkpoints.attachments import Attachments
from flax_transformer.checkpoints.contents import (
    ATTACHMENTS_ITEM,
    BATCHES_ITEM,
    METRICS_ITEM,
    STATE_ITEM,
    check_format,
    read_json_item,
)
from flax_transformer.checkpoints.data_position import restore_position
from flax_transformer.checkpoints.manifest import find_damage
from flax_transformer.errors import InputError
from flax_transformer.tree_paths import describe_differences, flatten_tree, shorten


class DamagedCheckpointError(InputError):
    """The files of one checkpoint are incomplete or altered; other checkpoints may be sound."""

    def __init__(self, step_directory: Path, reason: str):
        super().__init__(
            f"checkpoint {step_directory} is damaged: {reason}. "
            "Delete that directory to go on from the checkpoint before it."
        )


def list_steps(directory: Path) -> list[int]:
    """List the steps that have a complete directory, in rising order."""
    if not directory.is_dir():
        return []
    return sorted(int(path.name) for path in directory.iterdir() if path.name.isdecimal())


def read_metrics(step_directory: Path) -> dict[str, float]:
    """Read the metrics stored with a checkpoint; empty if they are missing or damaged."""
    stored = read_json_item(step_directory, METRICS_ITEM)
    return {name: math.nan if value is None else value for name, value in stored.items()}


def read_attachments(step_directory: Path) -> Attachments:
    """Read the files that a checkpoint carries; none if they are missing or damaged."""
    return read_json_item(step_directory, ATTACHMENTS_ITEM)


def restore_state(
    step_directory: Path,
    *,
    like: Any,
    batches: grain.DatasetIterator | None,
    verify: bool = True,
) -> Any:
    """Restore the training state, and set `batches` to the position stored with it.

    Args:
        step_directory: the directory of one step.
        like: a tree of the same structure as the saved state, of arrays or of
            ``jax.ShapeDtypeStruct``; each array is placed by the sharding given there, whatever
            devices it was saved from.
        batches: an iterator made from the same data and config as the one saved, in any number of
            processes; None leaves the position in the data alone.
        verify: compare the files with the manifest first; False if that has just been done.

    Raises:
        DamagedCheckpointError: a file is missing, cut or altered.
        InputError: the step does not exist, another version wrote it, or its content does not fit
            `like` or `batches`.
    """
    state = _restore_tree(step_directory, like, verify=verify)
    if batches is not None:
        _restore_position(step_directory, batches)
    return state


def restore_parameters(step_directory: Path, *, like: Parameters) -> Parameters:
    """Restore the parameters alone, without the optimizer's state.

    Leaves of `like` without a sharding come back as NumPy arrays; otherwise, and for the errors
    raised, see :func:`restore_state`.
    """
    return _restore_tree(step_directory, {"params": like}, verify=True)["params"]


def describe_error(error: Exception) -> str:
    """Return the class and the first line of an error's message, at most 200 characters of it.

    >>> describe_error(KeyError("state"))
    "KeyError: 'state'"
    """
    message = str(error).strip() or "no message"
    return f"{type(error).__name__}: {message.splitlines()[0][:200]}"


def _restore_tree(step_directory: Path, like: Any, *, verify: bool) -> Any:
    """Restore those leaves of the saved state that `like` names at its top level."""
    step_directory = step_directory.absolute()  # as Orbax wants it
    abstract = jax.tree.map(_abstract, like)
    expected = flatten_tree(abstract)
    roots = {path.split("/")[0] for path in expected}
    _check_files(step_directory, verify=verify)
    saved = _saved_leaves(step_directory)
    saved = {path: leaf for path, leaf in saved.items() if path.split("/")[0] in roots}
    if differences := describe_differences(expected, saved):
        raise InputError(
            f"checkpoint {step_directory} must fit the config, but {shorten(differences)}. "
            "Use the config that the run was started with, or another work directory."
        )
    restore_args = ocp.checkpoint_utils.construct_restore_args(abstract)
    arguments = ocp.args.PyTreeRestore(abstract, restore_args=restore_args, partial_restore=True)
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            return checkpointer.restore(step_directory / STATE_ITEM, arguments)
    except Exception as error:  # Orbax and TensorStore have no common class for unreadable files
        raise DamagedCheckpointError(step_directory, describe_error(error)) from error


def _check_files(step_directory: Path, *, verify: bool) -> None:
    if not step_directory.is_dir():
        steps = ", ".join(map(str, list_steps(step_directory.parent))) or "none"
        raise InputError(f"checkpoint {step_directory} does not exist; steps there: {steps}.")
    if verify and (damage := find_damage(step_directory)):
        raise DamagedCheckpointError(step_directory, damage)
    check_format(step_directory)


def _saved_leaves(step_directory: Path) -> dict[str, Any]:
    """Shapes and dtypes of the saved state."""
    try:
        metadata = ocp.PyTreeCheckpointHandler().metadata(epath.Path(step_directory / STATE_ITEM))
        return flatten_tree(metadata.tree)
    except Exception as error:  # as above
        raise DamagedCheckpointError(step_directory, describe_error(error)) from error


def _restore_position(step_directory: Path, batches: grain.DatasetIterator) -> None:
    try:
        restore_position(step_directory / BATCHES_ITEM, batches)
    except (OSError, json.JSONDecodeError) as error:
        raise DamagedCheckpointError(step_directory, describe_error(error)) from error
    except InputError as error:
        raise InputError(f"checkpoint {step_directory}: {error}") from error
    except Exception as error:  # each dataset class checks its state in its own way
        raise InputError(
            f"checkpoint {step_directory} holds a position in other data, got "
            f"{describe_error(error)}. Use the data config that the run was started with, or "
            "another work directory."
        ) from error


def _abstract(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=getattr(leaf, "sharding", None))
