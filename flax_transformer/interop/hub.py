"""Where a model is: in a directory, or on the Hugging Face hub."""

import re
from pathlib import Path

import huggingface_hub

from flax_transformer.errors import InputError, one_line

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_WANTED = ["*.json", "*.safetensors", "*.spm", "*.model", "vocab.txt", "merges.txt"]
_WANTED_WITHOUT_SAFETENSORS = [*_WANTED, "pytorch_model*.bin"]
_SECONDS_TO_ANSWER = 10.0


def find_directory(path_or_hub_id: str | Path) -> Path:
    """Return the directory of a model; what is there locally is never looked for on the hub.

    Raises:
        InputError: there is no such directory, and no such model on the hub, or no way to it.
    """
    path = Path(path_or_hub_id)
    name = str(path_or_hub_id)
    if path.exists() or path.is_symlink() or not _HUB_ID.fullmatch(name):
        return path
    try:
        # Unlike the list of files, this is asked for once: without a network it fails at once.
        files = huggingface_hub.model_info(name, timeout=_SECONDS_TO_ANSWER).siblings or []
        has_safetensors = any(file.rfilename.endswith(".safetensors") for file in files)
        patterns = _WANTED if has_safetensors else _WANTED_WITHOUT_SAFETENSORS
        return Path(huggingface_hub.snapshot_download(name, allow_patterns=patterns))
    except Exception as error:  # what a network raises depends on the library below
        return _find_in_cache(name, error)


def _find_in_cache(name: str, fault: Exception) -> Path:
    """Return what was downloaded before."""
    try:
        return Path(huggingface_hub.snapshot_download(name, local_files_only=True))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{name} must be a directory, or a model of the Hugging Face hub, got nothing there "
            f"and no answer from the hub: {one_line(fault, 120)}"
        ) from error
