"""The house: which folder may import which, and what imports no torch. docs/architecture.md shows the same."""

from __future__ import annotations

import ast
import graphlib
import importlib
import re
from pathlib import Path

import program
import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "vggrepro"
# From the top down: a folder imports only what stands below it. Folders of one line do not import each other.
LAYERS = (
    ("cli",),
    ("commands", "api"),
    ("reproduce",),
    ("plan",),
    ("doctor", "exchange", "report"),
    ("results",),
    ("evaluation", "training"),
    ("posteriors",),
    ("nets",),
    ("runs",),
    ("data",),
    ("system",),
    ("errors", "paper", "recipe"),
)
GROUND = LAYERS[-1]
WITHOUT_TORCH = ("data", "runs", "posteriors", "results", "report")


def unit(path: Path) -> str:
    """The folder of a module, or the module at the root."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def modules() -> list[Path]:
    return [path for path in sorted(PACKAGE.rglob("*.py")) if unit(path) not in ("__init__", "__main__")]


def dotted(path: Path) -> str:
    """A module's name, as an import has it."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imported(path: Path) -> set[str]:
    """The folders (or modules at the root) that a module imports, at its top or in a function."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "vggrepro":
            inside = node.module.split(".")[1:]
            found |= set(inside[:1]) or {alias.name for alias in node.names}
    return found - {"__version__"}


def test_imports_run_downwards() -> None:
    height = {name: place for place, names in enumerate(LAYERS) for name in names}
    for path in modules():
        own = unit(path)
        for other in imported(path) - {own}:
            below = height[other] > height[own] or (own in GROUND and other in GROUND)
            assert below, f"{path.relative_to(ROOT)} imports {other}, which does not stand below {own}"


def test_no_module_imports_itself_through_others() -> None:
    names = {dotted(path): path for path in modules()}
    arrows: dict[str, set[str]] = {}
    for name, path in names.items():
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        froms = [
            (node.module or "", alias.name)
            for node in nodes
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        ]
        targets = {f"{module}.{what}" if f"{module}.{what}" in names else module for module, what in froms}
        arrows[name] = (targets & names.keys()) - {name}
    assert list(graphlib.TopologicalSorter(arrows).static_order())


def test_the_root_has_few_modules() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 12


def test_five_folders_import_no_torch() -> None:
    names = [dotted(path) for folder in WITHOUT_TORCH for path in sorted((PACKAGE / folder).rglob("*.py"))]
    assert len(names) > 40
    done = program.run("imports_without_torch", *names)
    assert done.returncode == 0, done.stderr


def test_each_folder_says_what_it_is_for() -> None:
    for path in sorted(PACKAGE.glob("*/__init__.py")):
        text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        assert text and 2 <= len(text.splitlines()) <= 8, path


def test_the_architecture_page_names_what_is_there() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`(vggrepro/[\w/.]+)`", page))
    assert {f"vggrepro/{path.parent.name}/" for path in PACKAGE.glob("*/__init__.py")} <= named
    for name in named:
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`(tests/[\w/.]+|tables/[\w/.]+)`", page):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.stem)
def test_documented_imports_are_there(page: Path) -> None:
    for module, names in re.findall(r"^from (vggrepro[\w.]*) import (.+)$", page.read_text(encoding="utf-8"), re.M):
        for name in names.split(", "):
            there = hasattr(importlib.import_module(module), name)
            assert there or importlib.import_module(f"{module}.{name}"), f"{page.name}: {module}.{name}"
