"""The cost of an evaluation: FLOPs by hand, a row a method and Q, nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_evaluate import MACHINE, make_run

from vggrepro import cost, forecast
from vggrepro.augment import rescaled_size
from vggrepro.dataset import Dataset, Split
from vggrepro.evaluate import Protocol


def test_a_row_a_method_and_q(dataset: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forecast, "MEASURE_SECONDS", 0.05)
    run = make_run(tmp_path / "runs" / "A-256")
    before = sorted(run.path.iterdir())
    frame = forecast.forecast([run], dataset, Protocol(("dense", "multicrop", "center"), qs=(224, 256)), MACHINE)
    assert sorted(run.path.iterdir()) == before
    assert frame.method.tolist() == ["dense"] * 2 + ["multicrop"] * 2 + ["center"] * 2 + [""]
    assert frame.passes.tolist()[:6] == ["2", "2", "50", "50", "1", "1"]
    assert frame.run.iloc[-1] == "all, 18 images"
    crop = 2 * cost.crop_macs("A", 6, 64, 1 / 32) / 1e9
    assert frame.GFLOP.iloc[2] == pytest.approx(50 * crop)
    assert frame.GFLOP.iloc[4] == pytest.approx(crop)
    split = Split(dataset, "val")
    sizes = [rescaled_size(int(w), int(h), 73) for w, h in zip(split.widths, split.heights, strict=True)]
    by_hand = sum(4 * cost.dense_macs("A", height, width, 6, 64, 1 / 32) for width, height in sizes) / 18 / 1e9
    assert frame.GFLOP.iloc[1] == pytest.approx(by_hand)
    assert (frame["images/s"].iloc[:6] > 0).all()
    assert frame["GFLOP/s"].iloc[0] == pytest.approx(frame.GFLOP.iloc[0] * frame["images/s"].iloc[0])
