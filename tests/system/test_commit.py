"""Which commit made a result, in repositories of the test's own."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

import vggrepro
from vggrepro.system import commit

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

MODULE = Path(commit.__file__)
PLACE = MODULE.relative_to(Path(vggrepro.__file__).parent.parent)


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    return subprocess.run(["git", "-C", str(folder), *who, *words], capture_output=True, text=True, check=True).stdout


def commit_of(root: Path) -> str:
    """What the module says when the package stands in this folder."""
    copy = root / PLACE
    copy.parent.mkdir(parents=True, exist_ok=True)
    if not copy.exists():
        shutil.copy(MODULE, copy)
    spec = importlib.util.spec_from_file_location("copied", copy)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return str(module.commit())


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A repository with one commit, which holds the module where it stands in the package."""
    root = tmp_path / "checkout"
    (root / PLACE).parent.mkdir(parents=True)
    shutil.copy(MODULE, root / PLACE)
    git(tmp_path, "init", "-q", str(root))
    git(root, "add", "-A")
    git(root, "commit", "-qm", "first")
    return root


def test_the_commit_of_a_clean_checkout(checkout: Path) -> None:
    said = commit_of(checkout)
    assert len(said) >= 4
    assert git(checkout, "rev-parse", "HEAD").startswith(said)
    (checkout / "data.txt").write_text("a file that git does not know changes no code")
    assert commit_of(checkout) == said
    git(checkout, "commit", "-q", "--allow-empty", "-m", "second")
    assert commit_of(checkout) != said


def test_a_changed_checkout_has_a_plus(checkout: Path) -> None:
    clean = commit_of(checkout)
    (checkout / PLACE).write_text((checkout / PLACE).read_text() + "\n")
    assert commit_of(checkout) == clean + "+"


def test_outside_of_a_checkout_there_is_none(checkout: Path, tmp_path: Path) -> None:
    assert commit_of(tmp_path / "elsewhere") == ""
    assert commit_of(checkout / "site-packages") == ""  # installed inside somebody else's repository


def test_without_git_there_is_none(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(checkout))
    assert commit_of(checkout) == ""
