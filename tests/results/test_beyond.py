"""Results beyond the paper from planted posteriors: numbers by hand; stale files named, variants left alone."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from planted import CLASSES, LABELS, RIGHT, WRONG, dataset_of, make_run, plant

from vggrepro import paper
from vggrepro.paper import JITTER, S256, S384, Run
from vggrepro.posteriors.protocol import Method
from vggrepro.report import markdown
from vggrepro.results import beyond
from vggrepro.results.beyond import BeyondTable
from vggrepro.results.scores import Scores

B, SHALLOW, D = Run("B", S256), Run("B-5x5", S256), Run("D", JITTER)
HALF = [RIGHT[0], RIGHT[1], *[[0.1, 0.3, 0.2, 0.2, 0.1, 0.1]] * 2]  # images 2 and 3 wrong; 3 after five classes


def made(runs: Path) -> dict[str, BeyondTable]:
    return {extra.name: extra for extra in beyond.beyond_tables(Scores(runs, dataset_of()))}


def test_without_posteriors_there_is_nothing(tmp_path: Path) -> None:
    make_run(tmp_path, B)
    assert made(tmp_path) == {}


def test_the_curve_has_a_line_a_run_method_and_q(tmp_path: Path) -> None:
    make_run(tmp_path, B, done=6)
    make_run(tmp_path, D)
    for q, rows in ((224, WRONG), (256, RIGHT), (320, HALF)):
        plant(tmp_path, B, q, rows)
    plant(tmp_path, D, 384, HALF, "multicrop")
    curve = made(tmp_path)["curve"]
    columns = ["run", "S", "method", "Q", "images", "top1_val_error", "top5_val_error"]
    assert curve.frame[columns].to_numpy().tolist() == [
        ["B-256", "256", "dense", 224, 4, 75.0, 25.0],
        ["B-256", "256", "dense", 256, 4, 0.0, 0.0],
        ["B-256", "256", "dense", 320, 4, 50.0, 25.0],
        ["D-256-512", "[256;512]", "multi-crop", 384, 4, 50.0, 25.0],
    ]
    assert curve.frame["top1_val_error_low"].iloc[2] == pytest.approx(15.00, abs=0.01)  # Wilson, 2 of 4
    assert curve.frame["note"].iloc[0].startswith("Trained for ? (A-256) + 6 epochs")
    assert markdown.grid_of(curve.columns).to_numpy().tolist() == [
        ["B-256", "dense", "75.0", "**0.0**", "50.0", "–"],
        ["D-256-512", "multi-crop", "–", "–", "–", "50.0"],
    ]
    assert curve.groups == ("B", "D")


def test_a_single_q_is_no_curve_and_variants_are_not_taken(tmp_path: Path) -> None:
    make_run(tmp_path, B)
    path = plant(tmp_path, B, 256, RIGHT)
    plant(tmp_path, B, 224, RIGHT, flip=False).rename(path.with_name("val-dense-noflip-q224.parquet"))
    plant(tmp_path, B, 288, RIGHT, split="test").rename(path.with_name("test-dense-q288.parquet"))
    assert made(tmp_path) == {}


def test_stale_files_are_named_and_left_out(tmp_path: Path) -> None:
    make_run(tmp_path, B)
    plant(tmp_path, B, 224, RIGHT)
    plant(tmp_path, B, 256, RIGHT)
    path = plant(tmp_path, B, 288, RIGHT, weights="old")
    curve = made(tmp_path)["curve"]
    assert curve.frame["Q"].tolist() == [224, 256]
    assert curve.notes == (f"Not used: {path} (other weights).",)
    assert f"- Not used: {path} (other weights)." in markdown.beyond_markdown(curve).splitlines()


def test_runs_stand_in_the_papers_order(tmp_path: Path) -> None:
    runs = [Run("A-LRN", S256), B, SHALLOW, Run("D", S256), Run("D", S384), D, Run("D", JITTER, fc_only=True)]
    for run in reversed(runs):
        make_run(tmp_path, run)
        plant(tmp_path, run, 256, RIGHT)
    for name in ("another-name", "D-100", "E-256-copy"):  # have no place in the paper
        make_run(tmp_path, Run("E", S256))
        plant(tmp_path, Run("E", S256), 256, RIGHT)
        (tmp_path / "E-256").rename(tmp_path / name)
    (tmp_path / "B-256" / "config.json").unlink()  # as of posteriors of another tool
    assert list(beyond.available(Scores(tmp_path, dataset_of()))) == runs


def test_other_crops_stand_beside_the_papers_protocols(tmp_path: Path) -> None:
    for run in paper.chain(D):
        make_run(tmp_path, run, recipe={"momentum_form": "caffe"})
    for q in JITTER.test_scales:
        plant(tmp_path, D, q, RIGHT if q == 384 else WRONG)
        plant(tmp_path, D, q, RIGHT, "multicrop")
    assert "crops" not in made(tmp_path)  # nothing of other papers yet
    plant(tmp_path, D, 384, HALF, "center", grid=1, flip=False)
    for q in paper.GOOGLENET_QS[:-1]:
        plant(tmp_path, D, q, RIGHT, "googlenet")
    protocols = made(tmp_path)["crops"].frame["protocol"].tolist()
    assert protocols == ["centre crop", "dense, one Q", "dense", "multi-crop", "multi-crop & dense"]  # 3 of 4 Q: no 144
    plant(tmp_path, D, 352, WRONG, "googlenet")
    frame = made(tmp_path)["crops"].frame
    assert frame[["protocol", "seen", "Q", "top1_val_error"]].to_numpy().tolist() == [
        ["centre crop", "1 crop", "384", 50.0],
        ["144 crops", "144 crops", "256, 288, 320, 352", 0.0],  # three right files outweigh a wrong one
        ["dense, one Q", "2 whole images", "384", 0.0],
        ["dense", "6 whole images", "256, 384, 512", 0.0],
        ["multi-crop", "150 crops", "256, 384, 512", 0.0],
        ["multi-crop & dense", "150 crops, 6 whole images", "256, 384, 512", 0.0],
    ]
    assert frame["note"].tolist() == [""] * 6  # a centre crop without flips is as it should be


def test_the_numbers_of_crops_are_those_of_the_views() -> None:
    assert (Method("center").crops, 2 * Method("tencrop").crops) == (1, 10)
    assert 2 * Method("googlenet").crops * len(paper.GOOGLENET_QS) == 144


def test_the_shallow_net_is_compared_image_by_image(tmp_path: Path) -> None:
    for run, rows in ((B, HALF), (SHALLOW, WRONG)):
        make_run(tmp_path, run)
        plant(tmp_path, run, 256, rows, "center", grid=1, flip=False)
        plant(tmp_path, run, 256, RIGHT)
    plant(tmp_path, B, 224, RIGHT)  # the shallow net has none
    extra = made(tmp_path)["shallow"]
    centre, dense = extra.frame.iloc[0], extra.frame.iloc[1]
    assert len(extra.frame) == 2
    assert (centre["method"], centre["Q"], centre["images"]) == ("centre crop", 256, 4)
    assert (centre["top1_val_error_B"], centre["top1_val_error_B5x5"]) == (50.0, 75.0)
    assert (centre["top1_val_error_difference"], centre["top1_val_error_paper"]) == (25.0, 7.0)
    assert centre["top1_val_error_low"] < 0 < 25 < centre["top1_val_error_high"]  # one discordant image of 4
    assert centre["top5_val_error_difference"] == 0
    assert (dense["method"], dense["top1_val_error_difference"]) == ("dense", 0.0)
    assert math.isnan(dense["top1_val_error_paper"])
    headings = [column.heading for column in extra.columns]
    assert headings[:7] == ["method", "Q", "top-1 B", "top-1 B-5x5", "Δ top-1", "Δ top-1 95 %", "Δ top-1 paper"]


def test_over_seeds_there_are_means_and_each_seed(tmp_path: Path) -> None:
    one, other = tmp_path / "seed0", tmp_path / "seed1"
    for folder, rows in ((one, HALF), (other, WRONG)):
        for run in (B, SHALLOW):
            make_run(folder, run)
        plant(folder, B, 256, rows)
        plant(folder, B, 256, rows, "center", grid=1, flip=False)
        plant(folder, SHALLOW, 256, RIGHT, "center", grid=1, flip=False)
    plant(other, B, 224, RIGHT)  # the first seed has none
    scores = Scores(one, dataset_of(), [Scores(other, dataset_of())])
    found = {extra.name: extra for extra in beyond.beyond_tables(scores)}
    first, second = found["curve"].frame.to_dict("records")
    assert (first["Q"], first["top1_val_error_each"], first["n"]) == (224, "0.0000", 1)
    assert (second["top1_val_error"], second["top1_val_error_each"], second["n"]) == (62.5, "50.0000 75.0000", 2)
    assert second["top1_val_error_sd"] == pytest.approx(np.std([50, 75], ddof=1))
    shallow = found["shallow"]
    row = shallow.frame.iloc[0]
    assert (row["top1_val_error_B"], row["top1_val_error_B5x5"], row["n"]) == (62.5, 0.0, 2)
    cells = {column.heading: column.cells[0] for column in shallow.columns}
    assert (cells["Δ top-1"], cells["n"]) == ("-62.5 ± 17.7", "2")
    assert "claim 5 tests it" in shallow.caption
    assert found["curve"].caption.endswith(" Only the means are shown here.")


def test_few_classes_have_no_top_5(tmp_path: Path) -> None:
    for run in (B, SHALLOW):
        make_run(tmp_path, run)
        for q in (224, 256):
            plant(tmp_path, run, q, [[1, 0, 0]] * 3)
    found = {extra.name: extra for extra in beyond.beyond_tables(Scores(tmp_path, dataset_of(classes=3, images=3)))}
    assert found["curve"].frame["top5_val_error"].isna().all()
    assert not any("top-5" in column.heading for column in found["shallow"].columns)


def test_the_planted_rows_are_what_the_tests_say() -> None:
    assert np.array(HALF).shape == (len(LABELS), CLASSES)
    assert [int(np.argmax(row)) == label for row, label in zip(HALF, LABELS, strict=True)] == [True, True, False, False]
