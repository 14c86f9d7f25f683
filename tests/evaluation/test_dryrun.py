"""The cost of an evaluation: FLOPs by hand, a row a method and Q, nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest
from nets import CPU, random_run
from typer.testing import CliRunner

from vggrepro.cli import app
from vggrepro.data.dataset import Dataset, Split
from vggrepro.data.rescaling import rescaled_size
from vggrepro.evaluation import dryrun, views
from vggrepro.evaluation.evaluate import evaluate
from vggrepro.nets import cost
from vggrepro.paper import Architecture
from vggrepro.posteriors.protocol import Protocol


def test_a_row_a_method_and_q(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dryrun, "MEASURE_SECONDS", 0.05)
    run = random_run(tmp_path / "runs" / "A-256")
    before = sorted(run.path.iterdir())
    frame = dryrun.forecast([run], dataset, Protocol(("dense", "multicrop", "center"), qs=(224, 256)), CPU)
    assert sorted(run.path.iterdir()) == before
    assert frame.method.tolist() == ["dense"] * 2 + ["multicrop"] * 2 + ["center"] * 2 + ["decoding", "18 images"]
    assert frame.Q.tolist()[6] == "224, 256"
    split = Split(dataset, "val")
    longer = [max(rescaled_size(int(w), int(h), 64)) for w, h in zip(split.widths, split.heights, strict=True)]
    crops = sum(len(set(views.grid_offsets(side, 64, 5))) for side in longer) / 18  # one row, as the shorter side is 64
    assert frame.passes.tolist()[:6] == ["2", "2", f"{2 * crops:.3g}", "50", "1", "1"]
    assert frame.run.iloc[-1] == "total"
    crop = 2 * cost.crop_macs(Architecture("A", 6, 64, 1 / 32)) / 1e9
    assert frame.GFLOP.iloc[2:5].tolist() == pytest.approx([2 * crops * crop, 50 * crop, crop])
    sizes = [rescaled_size(int(w), int(h), 73) for w, h in zip(split.widths, split.heights, strict=True)]
    by_hand = (
        sum(4 * cost.dense_macs(Architecture("A", 6, 64, 1 / 32), height, width) for width, height in sizes) / 18 / 1e9
    )
    assert frame.GFLOP.iloc[1] == pytest.approx(by_hand)
    assert (frame["images/s"].iloc[:7] > 0).all()
    assert frame["GFLOP/s"].iloc[0] == pytest.approx(frame.GFLOP.iloc[0] * frame["images/s"].iloc[0])


def test_decoding_counts_once_for_all_methods_and_q(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dryrun, "_measured", lambda *_: 0.1)  # images/s: 18 images take 180 s
    monkeypatch.setattr(dryrun, "_decoded", lambda *_: 0.3)  # 60 s
    run = random_run(tmp_path / "runs" / "A-256")
    frame = dryrun.forecast([run], dataset, Protocol(("dense", "center"), qs=(224, 256)), CPU)
    assert frame.time.tolist() == ["3 min 00 s"] * 4 + ["1 min 00 s", "13 min 00 s"]


def test_what_is_done_costs_nothing(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dryrun, "_measured", lambda *_: 0.1)
    monkeypatch.setattr(dryrun, "_decoded", lambda *_: 0.3)
    run = random_run(tmp_path / "runs" / "A-256")
    evaluate(run, dataset, Protocol(qs=(224,)), CPU)
    frame = dryrun.forecast([run], dataset, Protocol(qs=(224, 256)), CPU)
    assert frame.Q.tolist() == ["256", "256", ""]
    assert dryrun.forecast([run], dataset, Protocol(qs=(224,)), CPU).empty


def test_of_several_processes_the_first_alone_measures_and_prints(
    dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dryrun, "MEASURE_SECONDS", 0.05)
    run = random_run(tmp_path / "runs" / "A-256")
    words = ["evaluate", "--dry-run", "--q", "224", "--data", str(dataset.folder), "--runs", str(run.path.parent)]
    for rank, lines in (("0", 4), ("1", 0)):
        result = CliRunner().invoke(app, words, env={"RANK": rank, "WORLD_SIZE": "2"})
        assert result.exit_code == 0, result.output
        assert len(result.stdout.splitlines()) == lines
