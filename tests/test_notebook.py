"""docs/first-hour.ipynb runs from its first cell to its last, on fewer images than it says."""

from __future__ import annotations

from pathlib import Path

import pytest

from vggrepro.data.prepare import prepare
from vggrepro.data.sources import DemoSource

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.read(ROOT / "docs" / "first-hour.ipynb", 4)
    questions = notebook.cells[-1].source
    assert all(f"\n{number}. " in questions for number in range(1, 6))
    cell = next(cell for cell in notebook.cells if 'command("prepare", "demo")\n' in cell.source)
    cell.source = cell.source.replace('command("prepare", "demo")\n', "")
    prepare(DemoSource(0, train=160, val=80), tmp_path / "data" / "first-hour", "demo")
    nbclient.NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert (tmp_path / "runs" / "first-hour" / "B-256" / "weights.safetensors").is_file()
