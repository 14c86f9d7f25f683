"""The README of a built package."""

from __future__ import annotations

import importlib.util
import re
import sys
import tomllib
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """hatch_build.py, loaded without hatchling, which only builds need."""
    interface = SimpleNamespace(MetadataHookInterface=object)
    monkeypatch.setitem(sys.modules, "hatchling.metadata.plugin.interface", interface)
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_relative_links_lead_to_the_repository(hook: ModuleType) -> None:
    text = "See [the data](docs/data.md), ![a figure](tables/x.png), [the paper](https://arxiv.org) and [below](#here)."
    assert hook.absolute(text, "https://example.org/me/it/") == (
        "See [the data](https://example.org/me/it/blob/HEAD/docs/data.md), "
        "![a figure](https://example.org/me/it/raw/HEAD/tables/x.png), [the paper](https://arxiv.org) and "
        "[below](#here)."
    )
    assert hook.absolute(text, "") == "See the data, , [the paper](https://arxiv.org) and [below](#here)."


def test_the_package_s_page_links_the_repository_where_its_address_is_known(
    hook: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = hook.ReadmeHook()
    made.root = str(ROOT)
    paper = {"Paper": "https://arxiv.org/abs/1409.1556"}
    monkeypatch.delenv("VGGREPRO_REPOSITORY", raising=False)
    made.config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["metadata"]["hooks"]["custom"]
    made.update(known := dict[str, Any]())
    assert known["urls"] == paper
    monkeypatch.setenv("VGGREPRO_REPOSITORY", "https://example.org/me/it/")
    made.update(known)
    changes = "https://example.org/me/it/blob/HEAD/CHANGELOG.md"
    assert known["urls"] == paper | {"Repository": "https://example.org/me/it/", "Changelog": changes}


def test_no_link_of_the_packages_readme_is_dead(hook: ModuleType) -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for address in ("", "https://example.org/me/it"):
        links = re.findall(r"\]\(([^)]+)\)", hook.absolute(readme, address))
        assert links
        assert all(link.startswith(("https://", "#")) for link in links), address
    relative = [link for link in re.findall(r"\]\(([^)]+)\)", readme) if not link.startswith(("http", "#"))]
    assert [link for link in relative if not (ROOT / link.partition("#")[0]).exists()] == []
