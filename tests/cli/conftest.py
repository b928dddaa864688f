"""The directory of a tiny model, and a way to run commands on it within the process."""

import io
import sys

import jax
import pytest
from tiny_translator import TinyTranslator, make_tiny_translator

from flax_transformer.cli.main import main
from flax_transformer.interop.pretrained import Pretrained, save_model


@pytest.fixture(scope="session")
def tiny_translator() -> TinyTranslator:
    return make_tiny_translator()


@pytest.fixture(scope="session")
def model_directory(tiny_translator, tmp_path_factory):
    model, params, tokenizer, _ = tiny_translator
    directory = tmp_path_factory.mktemp("tiny") / "model"
    save_model(directory, Pretrained(model, params, model.config, tokenizer))
    return directory


@pytest.fixture
def run_main(monkeypatch, capsys):
    """Return a function of a command line and standard input: (status, output, errors)."""
    jax.devices()  # they are there: no command may choose how many for the tests after it

    def run_main(*argv, stdin=b""):
        if argv[:1] in (("translate",), ("evaluate",)) and "--devices" not in argv:
            # Programs for all simulated devices take long to compile.
            argv = (*argv, "--devices", 1)
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        status = main([str(argument) for argument in argv])
        output = capsys.readouterr()
        return status, output.out, output.err

    return run_main
