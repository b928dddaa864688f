"""The tiny model, for the tests of this directory."""

import pytest
from tiny_translator import TinyTranslator, make_tiny_translator


@pytest.fixture(scope="session")
def tiny_translator() -> TinyTranslator:
    return make_tiny_translator()
