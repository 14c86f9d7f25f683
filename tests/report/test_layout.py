"""A table on a page: the paper's grouped headings and rows, bold, intervals, rounding."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from planted import RIGHT, WRONG, dataset_of, make_run, multi_scale, plant

from vggrepro.paper import S256, S384, Run
from vggrepro.report import layout
from vggrepro.results.scores import Scores
from vggrepro.results.tables import TABLES

TOP1, TOP5 = "top-1 val. error (%)", "top-5 val. error (%)"
NAN = math.nan


def test_table_3_has_the_papers_headings_and_a_group_a_net(tmp_path: Path) -> None:
    make_run(tmp_path, Run("C", S384))
    plant(tmp_path, Run("C", S384), 384, WRONG)
    frame = layout.paper_layout(TABLES[3](Scores(tmp_path, dataset_of())))
    measured = [(top, sub) for top in (TOP1, TOP5) for sub in ("ours", "low", "high", "paper", "Δ")]
    side = "smallest image side"
    assert list(frame.columns) == [("ConvNet config.", ""), (side, "train (S)"), (side, "test (Q)"), *measured]
    assert list(frame.index.get_level_values("group")) == [*("A", "A-LRN", "B"), *"CCCDDDEEE"]
    assert frame.loc[("C", 5), (TOP1, "ours")] == 75.0
    assert frame.loc[("C", 5), (TOP1, "Δ")] == 75.0 - 28.1
    assert frame.loc[("C", 5), (TOP1, "low")] == pytest.approx(30.06, abs=0.01)  # Wilson, 3 of 4
    assert frame[(TOP1, "ours")].notna().sum() == 1


def test_without_numbers_of_ours_there_are_no_intervals(tmp_path: Path) -> None:
    frame = layout.paper_layout(TABLES[4](Scores(tmp_path, dataset_of())))
    assert [sub for top, sub in frame.columns if top == TOP1] == ["ours", "paper", "Δ"]


@pytest.mark.parametrize(
    ("number", "groups"),
    [
        (5, {"D": 3, "E": 3}),
        (6, {"ILSVRC submission": 1, "post-submission": 3}),
        (7, {"VGG": 3, "GoogLeNet": 2, "MSRA": 2, "Clarifai": 2, "Zeiler & Fergus": 2, "OverFeat": 2,
             "Krizhevsky et al.": 2}),
    ],
)  # fmt: skip
def test_groups_of_rows(tmp_path: Path, number: int, groups: dict[str, int]) -> None:
    table = TABLES[number](Scores(tmp_path, dataset_of()))
    assert {name: len(part) for name, part in layout.paper_layout(table).groupby(level="group", sort=False)} == groups


def test_table_6_names_its_groups_once_and_the_test_error_is_the_papers_alone(tmp_path: Path) -> None:
    frame = layout.paper_layout(TABLES[6](Scores(tmp_path, dataset_of())))
    assert list(frame.columns)[:2] == [("combined ConvNet models", ""), ("method", "")]
    assert [column for column in frame if "test" in column[0]] == [("top-5 test error (%)", "paper")]


def test_table_2_lies_on_its_side_with_equal_nets_together(tmp_path: Path) -> None:
    frame = layout.paper_layout(TABLES[2](Scores(tmp_path, dataset_of())))
    assert list(frame.columns) == ["A, A-LRN", "B", "C", "D", "E"]
    assert frame.loc[("parameters (millions)", "paper")].tolist() == [133, 133, 134, 138, 144]
    assert frame.loc[("", "exactly"), "E"] == 143_667_240


def test_table_1_sets_the_layers_that_are_new_in_bold(tmp_path: Path) -> None:
    table = TABLES[1](Scores(tmp_path, dataset_of()))
    bold = {
        column.heading: [cell for cell, best in zip(column.cells, column.best, strict=True) if best]
        for column in layout.columns(table)
    }
    assert bold == {
        "A": [],
        "A-LRN": ["LRN"],
        "B": ["conv3-64", "conv3-128"],
        "C": ["conv1-256", "conv1-512", "conv1-512"],
        "D": ["conv3-256", "conv3-512", "conv3-512"],
        "E": ["conv3-256", "conv3-512", "conv3-512"],
    }
    frame = layout.paper_layout(table)
    assert list(frame.columns) == [("ConvNet configuration", net) for net in bold]
    assert frame.loc["block 5", ("ConvNet configuration", "E")].tolist() == ["conv3-512"] * 4 + ["maxpool"]
    assert frame.loc["FC", ("ConvNet configuration", "A")].tolist() == ["FC-4096", "FC-4096", "FC-1000", "soft-max"]


def test_best_cells_are_ours_and_the_papers(tmp_path: Path) -> None:
    multi_scale(tmp_path)
    columns = {c.heading: c for c in layout.columns(TABLES[5](Scores(tmp_path, dataset_of())))}
    assert columns["top-1 ours"].cells == ["75.0", "0.0", "0.0", "0.0", "0.0", "0.0"]
    assert columns["top-1 ours"].best == [False, True, True, True, True, True]
    assert columns["top-1 paper"].best == [False, False, True, False, False, True]  # 24.4 twice
    assert not any(columns["Δ top-1"].best)
    assert columns["top-1 95 %"].cells[1] == "[0.0; 49.0]"  # none of 4


def test_a_lone_run_of_six_classes_is_told_with_its_letter(tmp_path: Path) -> None:
    make_run(tmp_path, Run("A", S256), done=6)
    plant(tmp_path, Run("A", S256), 256, RIGHT)
    columns = {c.heading: c for c in layout.columns(TABLES[3](Scores(tmp_path, dataset_of())))}
    assert columns["note"].cells[0] == "a"
    assert columns["top-1 ours"].cells[:2] == ["0.0", "–"]
