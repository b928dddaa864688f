"""What the documents show is what happens."""

import doctest
from pathlib import Path

DOCUMENT = Path(__file__).parents[2] / "docs" / "search.md"


def test_the_examples_give_what_is_shown():
    results = doctest.testfile(str(DOCUMENT), module_relative=False)
    assert results.attempted >= 6
    assert not results.failed
