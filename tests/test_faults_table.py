import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def read_rows() -> dict[str, list[str]]:
    """Number of each row to the tests that it names."""
    rows = {}
    for line in (ROOT / "docs" / "faults.md").read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if re.fullmatch(r"[A-Z]\d+", cells[0]):
            number, fault, promise, tests = cells
            assert number not in rows, f"{number} is there twice"
            assert fault, f"{number} must name a fault"
            assert promise, f"{number} must say what happens"
            rows[number] = re.findall(r"`([^`]+)`", tests)
    return rows


ROWS = read_rows()


@pytest.mark.parametrize("number", ROWS)
def test_every_row_names_tests_that_exist(number: str) -> None:
    assert ROWS[number]
    for name in ROWS[number]:
        path, _, function = name.partition("::")
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
        assert function.startswith("test_")
        assert function in functions, f"{path} has no {function}"


def test_no_row_is_missing() -> None:
    faults = {f"F{number}" for number in range(1, 35)}
    assert set(ROWS) == faults | {f"B{number}" for number in range(8, 18)}
