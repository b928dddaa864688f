"""What importing the package loads, and what it offers."""

import subprocess
import sys

import pytest

import flax_transformer as ft

HEAVY = (
    "grain",
    "huggingface_hub",
    "orbax",
    "sacrebleu",
    "safetensors",
    "sentencepiece",
    "tensorboard",
    "tensorflow",
    "tensorflow_datasets",
    "tokenizers",
    "torch",
    "tqdm",
    "transformers",
    "tyro",
)


def imported_by(code):
    """Return the top-level modules that are loaded after ``code`` in a new process."""
    code += "\nimport sys; print(*{name.split('.')[0] for name in sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_package_loads_nothing_until_it_is_asked_for():
    assert "jax" not in imported_by("import flax_transformer")


def test_models_and_searches_load_nothing_heavy():
    code = (
        "from flax_transformer import BeamSearch, DecoderOnly, EncoderOnly, generate, gpt2, stream"
    )
    loaded = imported_by(code)
    assert "flax" in loaded
    assert not loaded & set(HEAVY)


@pytest.mark.parametrize("name", ft.__all__)
def test_every_public_name_is_there(name):
    assert getattr(ft, name).__name__ == name


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'flax_transformer' has no attribute 'BERT'"):
        _ = ft.BERT
