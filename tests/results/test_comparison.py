"""Two reproductions side by side: paired on the same images, else independent; numbers by hand."""

from __future__ import annotations

import dataclasses
import io
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from planted import RIGHT, WRONG, dataset_of, make_run, multi_scale, plant

from vggrepro.paper import JITTER, S256, Run
from vggrepro.report import documents
from vggrepro.results import comparison, intervals
from vggrepro.results.scores import Scores, foreign_data

A = Run("A", S256)


def shelves(tmp_path: Path, theirs: str = "print") -> tuple[Scores, Scores]:
    """Ours: A right everywhere; theirs: wrong but for image 1, on images of fingerprint `theirs`."""
    for name, rows, fingerprint in (("ours", RIGHT, "print"), ("theirs", WRONG, theirs)):
        make_run(tmp_path / name, A)
        plant(tmp_path / name, A, 256, rows, fingerprint=fingerprint)
    other = dataclasses.replace(dataset_of(), fingerprint=theirs)
    return Scores(tmp_path / "ours", dataset_of()), Scores(tmp_path / "theirs", other)


def test_the_same_images_are_compared_one_by_one(tmp_path: Path) -> None:
    (table,) = comparison.side_by_side(*shelves(tmp_path))
    assert (table.name, len(table.frame)) == ("table3", 1)  # no row that neither has
    row = table.frame.iloc[0]
    assert (row["net"], row["top1_val_error_ours"], row["top1_val_error_theirs"]) == ("A", 0.0, 75.0)
    assert (row["top1_val_error_difference"], row["top1_val_error_paper"]) == (-75.0, 29.6)
    made = intervals.compare(np.zeros(4, bool), np.array([True, False, True, True]))
    assert (row["top1_val_error_low"], row["top1_val_error_high"]) == (made.low, made.high)
    assert row["top1_val_error_p"] == pytest.approx(0.25)  # 2 · (1/2)³
    assert (row["images_ours"], row["images_theirs"]) == (4, 4)
    assert [column.heading for column in table.columns][3:9] == [
        "top-1 ours", "top-1 theirs", "Δ top-1", "Δ top-1 95 %", "top-1 p", "top-1 paper"
    ]  # fmt: skip


def test_different_images_are_independent(tmp_path: Path) -> None:
    ours, theirs = shelves(tmp_path, "other")
    (table,) = comparison.side_by_side(ours, theirs)
    row = table.frame.iloc[0]
    interval = comparison.newcombe(0, 4, 3, 4)
    assert (row["top1_val_error_low"], row["top1_val_error_high"]) == (interval.low, interval.high)
    assert math.isnan(row["top1_val_error_p"])
    assert "top-1 p" not in [column.heading for column in table.columns]
    assert "Both on different images" in documents.beside(ours, theirs).markdown()


def test_newcombes_interval_by_his_examples() -> None:
    # Newcombe 1998, Statistics in Medicine 17:873, table II, method 10.
    for counts, low, high in (
        ((56, 70, 48, 80), 0.0524, 0.3339),
        ((9, 10, 3, 10), 0.1705, 0.8090),
        ((10, 10, 0, 20), 0.6791, 1.0),
    ):
        interval = comparison.newcombe(*counts)
        assert (interval.low / 100, interval.high / 100) == pytest.approx((low, high), abs=5e-5)


def test_runs_of_other_data_are_known(tmp_path: Path) -> None:
    make_run(tmp_path, Run("A", S256), dataset={"name": "photos", "fingerprint": "x"})
    assert foreign_data(tmp_path, dataset_of()) == "photos"
    make_run(tmp_path, Run("B", S256))
    assert foreign_data(tmp_path, dataset_of()) is None
    assert foreign_data(tmp_path / "none", dataset_of()) is None


def test_a_row_of_one_side_stands_alone_and_stale_files_are_named(tmp_path: Path) -> None:
    multi_scale(tmp_path / "ours")
    make_run(tmp_path / "theirs", Run("D", JITTER))
    paths = [plant(tmp_path / "theirs", Run("D", JITTER), q, RIGHT, weights="old") for q in JITTER.test_scales]
    three, four, five, six, seven = comparison.side_by_side(
        Scores(tmp_path / "ours", dataset_of()), Scores(tmp_path / "theirs", dataset_of())
    )
    assert five.frame["top1_val_error_ours"].tolist() == [75.0, 0, 0, 0, 0, 0]
    assert five.frame["top1_val_error_theirs"].isna().all()
    assert five.frame["images_theirs"].isna().all()
    names = ", ".join([str(paths[0]), *(path.name for path in paths[1:])])
    assert four.notes == (f"Not used: {names} (other weights).",)
    assert seven.frame["method"].tolist() == [
        "VGG (2 nets, multi-crop & dense eval.)", "VGG (1 net, multi-crop & dense eval.)"
    ]  # fmt: skip
    assert six.groups == ("post-submission",) * 3
    assert three.groups == ("D", "E")


def test_the_documents(tmp_path: Path) -> None:
    ours, theirs = shelves(tmp_path)
    text = documents.beside(ours, theirs).markdown()
    assert text.startswith(f"# VGG's tables: {ours.runs} against {theirs.runs}\n\nOurs: {ours.runs} on tiny")
    assert "Both on the same images" in text
    assert "| A   | 256 | 256 |        0.0 |         75.0 |   -75.0 |" in text
    frame = pd.read_csv(io.StringIO(documents.beside_csv(ours, theirs)))
    assert frame[["table", "net", "top1_val_error_difference"]].to_numpy().tolist() == [[3, "A", -75.0]]
    empty = Scores(tmp_path / "empty", dataset_of())
    said = documents.beside(empty, empty).markdown()
    assert said.endswith("Neither has the posteriors of any row: `vggrepro report` names the commands.\n")
    assert documents.beside_csv(empty, empty) == "table\n"
