"""Where a model is: in a directory, or on the Hugging Face hub."""

import re
from collections.abc import Collection
from pathlib import Path

import huggingface_hub

from flax_transformer.errors import InputError, one_line
from flax_transformer.interop.tensor_files import INDEX_SUFFIX, SAFETENSORS_FILE

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_WANTED = ["*.json", "*.spm", "*.model", "vocab.txt", "merges.txt"]
_SAFETENSORS, _TORCH = "model*.safetensors", "pytorch_model*.bin"
_SECONDS_TO_ANSWER = 10.0


def find_directory(path_or_hub_id: str | Path, *, revision: str | None = None) -> Path:
    """Return the directory of a model; what is there locally is never looked for on the hub.

    Args:
        path_or_hub_id: a directory, or the name of a model on the hub.
        revision: branch, tag or commit there; None for the newest.

    Raises:
        InputError: there is no such directory, and no such model on the hub, or no way to it; or a
            revision of a directory is asked for.
    """
    path = Path(path_or_hub_id)
    name = str(path_or_hub_id)
    if path.exists() or path.is_symlink() or not _HUB_ID.fullmatch(name):
        if revision is not None:
            raise InputError(f"revision must be None for the directory {name}, got {revision!r}.")
        return path
    try:
        # Unlike the list of files, this is asked for once: without a network it fails at once.
        found = huggingface_hub.model_info(name, revision=revision, timeout=_SECONDS_TO_ANSWER)
        patterns = choose_patterns([file.rfilename for file in found.siblings or []])
        return Path(
            huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=patterns)
        )
    except Exception as error:  # what a network raises depends on the library below
        return _find_in_cache(name, revision, error)


def choose_patterns(names: Collection[str]) -> list[str]:
    """Return the patterns of those files of a model that are read.

    Other safetensors than those of the ``transformers`` library's names may lie beside them: the
    same model in another layout, an optimiser's state, an adapter.

    >>> choose_patterns(["config.json", "adapter.safetensors", "pytorch_model.bin"])[-1]
    'pytorch_model*.bin'
    """
    indexed = f"{SAFETENSORS_FILE}{INDEX_SUFFIX}"
    is_safe = SAFETENSORS_FILE in names or indexed in names
    return [*_WANTED, _SAFETENSORS if is_safe else _TORCH]


def _find_in_cache(name: str, revision: str | None, fault: Exception) -> Path:
    """Return what was downloaded before."""
    try:
        return Path(
            huggingface_hub.snapshot_download(name, revision=revision, local_files_only=True)
        )
    except (OSError, ValueError) as error:
        raise InputError(
            f"{name} must be a directory, or a model of the Hugging Face hub, got nothing there "
            f"and no answer from the hub: {one_line(fault, 120)}"
        ) from error
