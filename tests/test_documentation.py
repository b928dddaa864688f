"""What the documents show is what happens."""

import doctest
import re
from pathlib import Path

import pytest

import flax_transformer as ft

REPOSITORY = Path(__file__).parents[1]
DOCUMENTS = sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")])


@pytest.mark.parametrize(("name", "num_examples"), [("search.md", 6), ("reading.md", 30)])
def test_the_examples_give_what_is_shown(name: str, num_examples: int) -> None:
    results = doctest.testfile(str(REPOSITORY / "docs" / name), module_relative=False)
    assert results.attempted >= num_examples
    assert not results.failed


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_what_is_named_is_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    names = set(re.findall(r"\bft\.(\w+)", text))
    assert names <= set(ft.__all__)
    files = {
        link.partition("#")[0]
        for link in re.findall(r"\]\(([^)]+)\)", text)
        if "://" not in link and not link.startswith("#")
    }
    assert not [file for file in files if not (path.parent / file).exists()]


def test_the_reading_guide_names_what_there_is() -> None:
    """After a module in backquotes and a colon come names that it defines."""
    text = (REPOSITORY / "docs" / "reading.md").read_text(encoding="utf-8")
    package = REPOSITORY / "flax_transformer"
    modules = set(re.findall(r"`([a-z_]+/\w+\.py)`", text))
    assert len(modules) > 20
    assert not [module for module in modules if not (package / module).exists()]
    named = re.findall(r"`([a-z_]+/\w+\.py)`: ((?:`\w+`(?:, )?)+)", text)
    missing = [
        (module, name)
        for module, names in named
        for name in re.findall(r"`(\w+)`", names)
        if not re.search(rf"^ *(?:def|class) {name}\b", (package / module).read_text(), re.M)
    ]
    assert named
    assert not missing
