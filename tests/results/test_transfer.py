"""Splits, the linear SVM, several nets together, and Tables 11 and 12 from stored results."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Call
from nets import random_run
from transfer_files import write_actions, write_caltech, write_voc

from vggrepro.data.dataset import Dataset
from vggrepro.data.transfer_sets.opening import open_set
from vggrepro.paper import TRANSFER, Transfer
from vggrepro.results.scores import Scores
from vggrepro.results.transfer import Result, _climbed, result_path, score_split, splits_of
from vggrepro.results.transfer_tables import ROWS, Representation, transfer_tables
from vggrepro.runs.folder import RunFolder
from vggrepro.system.files import write_json

SMALL = ("--q", "256,384", "--precision", "fp32", "--workers", "0")


def test_random_splits_have_seeds_and_share_no_image(tmp_path: Path) -> None:
    data = open_set(str(write_caltech(tmp_path)))
    protocol = Transfer((256,), False, "caltech101_mean_recall", 5, 2)
    splits = splits_of(data, protocol, range(3))
    for split in splits:
        assert not set(split.train) & set(split.test)
        assert list(np.bincount(data.labels[split.train])) == [5, 5, 5]
        assert list(np.bincount(data.labels[split.test])) == [2, 2, 2]
    assert len({tuple(split.train) for split in splits}) == 3
    again = splits_of(data, protocol, range(3))
    assert all((a.train == b.train).all() for a, b in zip(splits, again, strict=True))


def test_the_svm_separates_what_can_be_separated(tmp_path: Path) -> None:
    data = open_set(str(write_caltech(tmp_path)))
    split = splits_of(data, Transfer((256,), False, "", 5, 3), [0])[0]
    x = np.eye(3, dtype=np.float32)[data.labels]
    assert score_split(x, data.labels, split)["mean_recall"] == 100
    voc = open_set(str(write_voc(tmp_path, images=24)))
    published = splits_of(voc, TRANSFER["voc2007"], [0])[0]
    scored = score_split((voc.labels > 0).astype(np.float32), voc.labels, published)
    assert (scored["map"], scored["map_11_point"]) == (100, 100)


@pytest.mark.parametrize("top", range(5))
def test_c_is_the_top_of_a_hill_and_the_first_of_equal_ones(top: int) -> None:
    tried = []

    def value(place: int) -> float:
        tried.append(place)
        return -abs(place - top)

    assert _climbed(value, 5) == top
    assert set(tried) <= set(range(min(top - 1, 1), max(top + 1, 3) + 1))  # nothing beyond the neighbours of the top
    assert _climbed(lambda place: min(place, 3), 5) == 3
    assert _climbed(lambda place: 0.0, 5) == 0


def test_the_study_compares_scales_pooling_depth_and_pairs(vggrepro: Call, tmp_path: Path) -> None:
    root = str(write_caltech(tmp_path))
    random_run(tmp_path / "runs" / "A-256")
    random_run(tmp_path / "runs" / "D-256", seed=1, net="D")
    assert vggrepro("features", "--data", root, *SMALL)[0] == 0
    code, out, err = vggrepro("transfer", "--data", root, "--q", "256,384", "--train-images", "5")
    assert code == 0, err
    assert "A-256 & D-256" in out
    for question in ("depth", "several scales", "pooling equal", "two nets"):
        assert question in out
    assert (tmp_path / "tables" / "caltech-101" / "transfer.csv").is_file()
    asked = pd.read_csv(tmp_path / "tables" / "caltech-101" / "questions.csv")
    assert asked.groupby("question", sort=False).size().to_dict() == {
        "does depth help": 3,  # at each Q, and stacked
        "do several scales help": 8,  # stacked and pooled
        "does pooling equal stacking": 2,
        "do two nets together help": 2,
    }
    assert vggrepro("transfer", "--data", root, "--q", "256", "--train-images", "5")[0] == 0
    asked = pd.read_csv(tmp_path / "tables" / "caltech-101" / "questions.csv")
    assert asked["question"].tolist() == ["does depth help", *["do two nets together help"] * 2]
    kept = sorted((tmp_path / "runs" / "transfer").rglob("*.json"))
    before = [path.stat().st_mtime_ns for path in kept]
    assert vggrepro("transfer", "--data", root, "--q", "256,384", "--train-images", "5")[1] == out
    assert [path.stat().st_mtime_ns for path in kept] == before


def test_actions_use_the_image_and_the_box(vggrepro: Call, tmp_path: Path) -> None:
    root = write_voc(tmp_path, 2012)
    names = [f"{number:06}" for number in range(12)]
    write_actions(root, {name: [(1, 1, 70, 65), (11, 2, 90, 70)] for name in names})
    random_run(tmp_path / "runs" / "A-256")
    action = ("--data", str(root), "--task", "action")
    assert vggrepro("features", *action, *SMALL)[0] == 0
    for more in ((), ("--box",)):
        code, out, err = vggrepro("transfer", "A-256", *action, "--q", "256,384", *more)
        assert code == 0, err
        assert "map_11_point" in out
    assert vggrepro("transfer", "A-256", "--data", str(write_caltech(tmp_path / "c")), "--box")[0] == 2


def test_tables_11_and_12_show_results_beside_the_papers(tmp_path: Path, dataset: Dataset) -> None:
    runs = tmp_path / "runs"
    weights = {}
    for name in ("D-256-512", "E-256-512"):
        run: RunFolder = random_run(runs / name, net=name[0], scale="256:512")
        weights[name] = run.weights_hash()
    assert transfer_tables(Scores(runs, dataset)) == []
    for data, kind, method in (
        ("caltech-101", "mean_recall", "VGG Net-D & Net-E"),
        ("voc2012-action", "map", "VGG Net-D & Net-E, image and bounding box"),
    ):
        protocol, (names, views) = TRANSFER[data], ROWS[method]
        what = Representation(names, protocol.qs, protocol.pooled, views)
        splits = [{kind: value, "test": 7} for value in (40.0, 42.0, 44.0)]
        made = Result(data, 2, 10, "val", what, weights, {}, "", 30, None, [0, 1, 2], [], {}, splits)
        write_json(result_path(runs, data, what), dataclasses.asdict(made))
    table11, table12 = transfer_tables(Scores(runs, dataset))
    from vggrepro.report import csv
    from vggrepro.report.latex import latex
    from vggrepro.report.markdown import markdown
    from vggrepro.report.page.html import paper_table

    text = markdown([table11, table12], dataset)
    row = next(line for line in text.splitlines() if line.startswith("| VGG Net-D & Net-E "))
    assert [cell in row for cell in ("42.0 ± 2.0", "92.7 ± 0.5", "-50.7")] == [True] * 3
    assert "errors in per cent (in Tables 11 and 12 precision and recall, the larger the better)" in text
    assert "85.2*" in text
    assert "1,512 classes" in text
    assert "42.0 ± 2.0" in paper_table(table11)
    assert r"42.0 $\pm$ 2.0" in latex([table11, table12], dataset)
    frame = csv.tidy([table11, table12])
    assert list(frame[frame["ours"].notna()]["std"]) == [2.0, 2.0]
    both = "D-256-512 E-256-512 --data"
    assert table11.notes[-1] == (
        f"Not run: voc2007, voc2012, caltech-256; `vggrepro features {both} voc2007`, then `vggrepro transfer {both} "
        "voc2007`; the same with --data voc2012, caltech256."
    )
    action = "--data voc2012 --task action"
    assert f"Not run: voc2012-action; `vggrepro features D-256-512 E-256-512 {action}`, then" in table12.notes[0]
    assert table11.frame["note"].tolist()[:4] == [""] * 4
    random_run(runs / "D-256-512", seed=5, net="D", scale="256:512")
    table11, _ = transfer_tables(Scores(runs, dataset))
    (stale,) = [note for note in table11.notes if "is of other weights of D-256-512" in note]
    assert f"renew it with `vggrepro features {both} caltech101`, then `vggrepro transfer {both} caltech101`." in stale
    assert table11.frame["caltech101_mean_recall"].isna().all()


def test_a_result_that_lacks_a_value_is_named_and_not_used(tmp_path: Path, dataset: Dataset) -> None:
    protocol, (names, views) = TRANSFER["caltech-101"], ROWS["VGG Net-D & Net-E"]
    path = result_path(tmp_path, "caltech-101", Representation(names, protocol.qs, protocol.pooled, views))
    write_json(path, {"dataset": "caltech-101"})
    assert Result.read(path) is None
    (table,) = transfer_tables(Scores(tmp_path, dataset))
    assert any(note.startswith(f"Not used: {path.name} lacks values; renew it with") for note in table.notes)
