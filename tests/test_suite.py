"""The tests themselves: what they share stands in modules that are no tests, and nothing outside is read."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent


def imported(path: Path) -> set[str]:
    """The modules that a file imports, by the last part of their names."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return {name.rpartition(".")[2] for name in names}


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: str(path.relative_to(TESTS)))
def test_no_file_imports_a_test_module_or_reads_beside_the_checkout(path: Path) -> None:
    modules = {other.stem for other in TESTS.rglob("test_*.py")}
    assert not imported(path) & modules
    outside = "sha" + "red"  # the folder of real data that may lie beside a checkout
    text = path.read_text(encoding="utf-8")
    assert not any(form in text for form in (f'"{outside}"', f"/{outside}", f"{outside}/"))
