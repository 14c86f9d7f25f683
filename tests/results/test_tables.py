"""Tables 1-7 from planted posteriors: numbers by hand, and dashes with commands."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from frames import line, notes_of
from planted import CLASSES, RIGHT, WRONG, dataset_of, make_run, multi_scale, plant

from vggrepro import paper
from vggrepro.paper import JITTER, S256, S384, Architecture, Run
from vggrepro.results import tables
from vggrepro.results.scores import Scores
from vggrepro.results.tables import TABLES
from vggrepro.system import advice
from vggrepro.system.advice import Invocation, invocation
from vggrepro.system.files import sha256


@pytest.mark.parametrize("number", range(3, 8))
def test_rows_and_their_order_are_the_papers(tmp_path: Path, number: int) -> None:
    table = TABLES[number](Scores(tmp_path, dataset_of()))
    printed = paper.published(number)
    for name in table.labels:
        assert list(table.frame[name]) == [row[name] for row in printed]
    for name in table.measures:
        expected = [float(row[name]) if row[name] else math.nan for row in printed]
        np.testing.assert_array_equal(table.frame[f"{name}_paper"], expected)
        assert table.frame[name].isna().all()


def test_a_row_of_table_3_by_hand(tmp_path: Path) -> None:
    make_run(tmp_path, Run("A", S256), seed=3)
    plant(tmp_path, Run("A", S256), 256, WRONG)
    row = line(tables.table3(Scores(tmp_path, dataset_of())), net="A")
    assert (row["top1_val_error"], row["top5_val_error"], row["images"]) == (75.0, 25.0, 4)
    assert row["top1_val_error_difference"] == pytest.approx(75 - 29.6)
    assert row["top5_val_error_difference"] == pytest.approx(25 - 10.4)
    assert (row["note"], row["data"], row["classes"], row["train_images"]) == ("", "tiny", CLASSES, 24)
    assert (row["preset"], row["crop"], row["width"]) == ("demo", "64", "0.125")
    weights = sha256(tmp_path / "A-256" / "weights.safetensors")[:12]
    assert tuple(row[["runs", "epochs", "seeds", "weights", "commit"]]) == (
        "A-256",
        "74",
        "3",
        weights,
        "abc",
    )


def test_a_row_of_table_4_averages_posteriors_not_decisions(tmp_path: Path) -> None:
    run = Run("B", S256)
    make_run(tmp_path, run)
    first = [[0.6, 0.4, 0, 0, 0, 0]] * 4
    second = [[0.4, 0.6, 0, 0, 0, 0]] * 4
    third = [[0.3, 0.5, 0, 0, 0, 0.2]] * 4  # means 0.433, 0.5, 0, 0, 0, 0.067: class 1 wins; ranks 1 0 3 2
    for q, rows in zip((224, 256, 288), (first, second, third), strict=True):
        plant(tmp_path, run, q, rows)
    scores = Scores(tmp_path, dataset_of())
    row = line(tables.table4(scores), net="B")
    assert (row["top1_val_error"], row["top5_val_error"]) == (75.0, 0.0)
    assert line(tables.table3(scores), net="B")["top1_val_error"] == 75.0


def test_both_methods_and_both_nets_have_equal_weight(tmp_path: Path) -> None:
    multi_scale(tmp_path)
    five, six, seven = tables.tables_of(Scores(tmp_path, dataset_of()), (5, 6, 7))
    # D: (WRONG + RIGHT) / 2 gives the true class at least 0.55: right everywhere
    expected = {"dense": (75.0, 25.0), "multi-crop": (0.0, 0.0), "multi-crop & dense": (0.0, 0.0)}
    for method, errors in expected.items():
        row = line(five, net="D", method=method)
        assert (row["top1_val_error"], row["top5_val_error"]) == errors
    fused = line(six, group="post-submission", method="dense")
    assert (fused["top1_val_error"], fused["runs"]) == (0.0, "D-256-512 E-256-512")
    assert math.isnan(line(six, group="ILSVRC submission")["top1_val_error"])
    assert line(seven, method="VGG (2 nets, multi-crop & dense eval.)")["top1_val_error"] == 0.0
    assert line(seven, method="VGG (1 net, multi-crop & dense eval.)")["runs"] == "E-256-512"
    assert seven.frame["top1_val_error"].notna().sum() == 2  # the other teams' rows are never ours
    assert seven.frame["top5_test_error"].isna().all()
    assert sum("ILSVRC server" in remark for remark in seven.remarks) == 1


def test_the_submission_takes_the_d_with_retrained_fc_layers(tmp_path: Path) -> None:
    for row_view in paper.rows(6)[0].views:
        make_run(tmp_path, row_view.run)
        plant(tmp_path, row_view.run, row_view.q, RIGHT)
    make_run(tmp_path, Run("D", S256))
    row = TABLES[6](Scores(tmp_path, dataset_of())).frame.iloc[0]
    assert row["top1_val_error"] == 0.0
    assert "D-256-512-fc" in row["runs"].split()
    assert len(row["runs"].split()) == 7


def test_missing_rows_are_dashes_with_the_commands(tmp_path: Path) -> None:
    make_run(tmp_path, Run("B", S256))
    with invocation(Invocation([("--runs", "elsewhere")])):
        table = tables.table3(Scores(tmp_path, dataset_of()))
    assert table.frame["top1_val_error"].isna().all()
    said = {net: notes_of(table, table.frame[table.frame["net"] == net].iloc[-1]) for net in "ABC"}
    assert said["A"] == [
        "Not run: `vggrepro train A --scale 256 --runs elsewhere`, "
        "then `vggrepro evaluate A-256 --dense --runs elsewhere`."
    ]
    assert said["B"] == ["Not run: `vggrepro evaluate B-256 --dense --runs elsewhere`."]
    assert said["C"] == [  # one training command for the chain, one footnote for three rows
        "Not run: `vggrepro train C --scale 256:512 --runs elsewhere`, "
        "then `vggrepro evaluate C-256 C-384 C-256-512 --dense --runs elsewhere`."
    ]
    assert table.frame["note"].nunique() == 6


def test_a_partly_evaluated_row_is_a_dash(tmp_path: Path) -> None:
    run = Run("B", S256)
    make_run(tmp_path, run)
    plant(tmp_path, run, 224, RIGHT)
    table = tables.table4(Scores(tmp_path, dataset_of()))
    assert math.isnan(line(table, net="B")["top1_val_error"])
    assert notes_of(table, line(table, net="B")) == ["Not run: `vggrepro evaluate B-256 --dense`."]


def test_commands_for_methods_and_the_fc_only_run() -> None:
    tuned = Run("D", JITTER, fc_only=True)
    tune = "vggrepro finetune-scale D --scale 256:512 --layers fc"
    assert advice.trainings([tuned]) == ["vggrepro train D --scale 384", tune]
    assert advice.trainings([tuned], finished=[Run("D", S384)]) == [tune]
    assert advice.trainings([tuned, Run("D", JITTER)]) == ["vggrepro train D --scale 256:512", tune]
    assert advice.trainings([Run("A", S256), Run("E", S384)]) == ["vggrepro train E --scale 384"]
    views = paper.rows(6)[2].views + paper.rows(5)[0].views
    assert advice.evaluations(views) == [
        "vggrepro evaluate D-256-512 --dense --multicrop",
        "vggrepro evaluate E-256-512 --multicrop",
    ]


def test_what_differs_from_the_paper_is_marked(tmp_path: Path) -> None:
    a, b, c, c384 = Run("A", S256), Run("B", S256), Run("C", S256), Run("C", S384)
    make_run(tmp_path, a, done=6)
    make_run(tmp_path, b, crop=32, start={"initialisation": "glorot"})
    make_run(tmp_path, c, done=6, dataset={"name": "other", "fingerprint": "x"}, recipe={"preset": "coarse"})
    make_run(tmp_path, c384, done=2, origin="imported from vgg.npz")
    plant(tmp_path, a, 256, RIGHT, flip=False)
    plant(tmp_path, b, 256, RIGHT, q_pixels=paper.real_pixels(256, 32))
    plant(tmp_path, c, 256, RIGHT)
    plant(tmp_path, c384, 384, RIGHT)
    table = tables.table3(Scores(tmp_path, dataset_of()))
    assert set(notes_of(table, line(table, net="A"))) == {
        "Trained for 6 epochs (the paper: 74).",
        "Evaluated without horizontal flips (the paper: with).",
    }
    assert set(notes_of(table, line(table, net="B"))) == {
        "Crop 32, width 0.125, stride 32 (most runs: crop 64, width 0.125, stride 32).",
        "B-256 started from random weights (the paper: A-256).",
        "Training, the paper's value in brackets: first weights glorot-normal (random).",
    }
    assert set(notes_of(table, line(table, net="C", S="256"))) == {
        "Trained on another data set (other).",
        "Trained for 6 (A-256) + 6 epochs (the paper: 74 + 74).",
    }
    assert notes_of(table, line(table, net="C", S="384")) == ["C-384: imported from vgg.npz."]


def test_a_damaged_run_folder_costs_no_row(tmp_path: Path) -> None:
    for net, name, text in (("A", "metrics.jsonl", "{}\nnonsense\n"), ("B", "config.json", "[]"), ("C", "", "")):
        run = make_run(tmp_path, Run(net, S256), done=6)
        plant(tmp_path, Run(net, S256), 256, RIGHT)
        if name:
            (run.path / name).write_text(text)
    table = tables.table3(Scores(tmp_path, dataset_of()))
    assert [line(table, net=net, S="256")["top1_val_error"] for net in "ABC"] == [0.0, 0.0, 0.0]
    for net, words in (("A", "metrics.jsonl: damaged"), ("B", "config.json: ")):
        assert any(words in note for note in notes_of(table, line(table, net=net))), net
    assert "How B-256 was trained is not known: its config.json is damaged." in notes_of(table, line(table, net="B"))
    assert "Trained for ? epochs (the paper: 74)." in notes_of(table, line(table, net="A"))


def test_epochs_are_told_scale_after_scale_and_once_if_all_rows_share_them(tmp_path: Path) -> None:
    multi_scale(tmp_path)
    assert tables.table5(Scores(tmp_path, dataset_of())).remarks == ()
    make_run(tmp_path, Run("A", S256), 7, epochs=7)
    for net in ("D", "E"):
        for scale, epochs in ((S256, 6), (S384, 2), (JITTER, 1)):
            make_run(tmp_path, Run(net, scale), epochs, epochs=epochs)
    table = tables.table5(Scores(tmp_path, dataset_of()))
    lengths = "7 (A-256) + 6 (S = 256) + 2 (S = 384) + 1 epochs"
    assert table.remarks == (f"Trained for {lengths} (the paper: 74 + 74, then it does not say).",)
    assert (table.frame["note"] == "").all()


def test_another_crop_grid_is_marked(tmp_path: Path) -> None:
    multi_scale(tmp_path)
    for q in JITTER.test_scales:
        plant(tmp_path, Run("D", JITTER), q, RIGHT, "multicrop", grid=3)
    table = tables.table5(Scores(tmp_path, dataset_of()))
    assert notes_of(table, line(table, net="D", method="multi-crop")) == [
        "Multi-crop on a 3 × 3 grid (the paper: 5 × 5)."
    ]
    assert line(table, net="D", method="dense")["note"] == ""


def test_few_classes_have_no_top_5(tmp_path: Path) -> None:
    make_run(tmp_path, Run("A", S256))
    plant(tmp_path, Run("A", S256), 256, [[1, 0, 0]] * 3)
    table = tables.table3(Scores(tmp_path, dataset_of(classes=3, images=3)))
    row = line(table, net="A")
    assert row["top1_val_error"] == pytest.approx(100 * 2 / 3)
    assert math.isnan(row["top5_val_error"])
    assert math.isnan(row["top5_val_error_difference"])
    assert "3 classes have no top-5 error." in table.remarks


def test_the_caption_says_what_was_measured(tmp_path: Path) -> None:
    table = tables.table3(Scores(tmp_path, dataset_of()))
    assert "4 validation images of tiny (6 classes); crop 64, width 0.125" in table.caption


def test_table_1_has_the_papers_layers(tmp_path: Path) -> None:
    table = tables.table1(Scores(tmp_path, dataset_of()))
    assert list(table.frame) == ["A", "A-LRN", "B", "C", "D", "E"]
    assert [cell.split()[0] for cell in table.frame.iloc[0]] == ["11", "11", "13", "16", "16", "19"]
    assert (table.frame == "maxpool").sum().tolist() == [5] * 6
    assert table.frame["A-LRN"].tolist().count("LRN") == 1
    assert list(table.frame["A"][-4:]) == ["FC-4096", "FC-4096", "FC-1000", "soft-max"]


def test_table_2_counts_parameters(tmp_path: Path) -> None:
    table = tables.table2(Scores(tmp_path, dataset_of()))
    assert table.frame["parameters_millions"].round().tolist() == table.frame["parameters_millions_paper"].tolist()
    assert table.frame["parameters"].tolist()[-1] == 143_667_240
    assert table.frame["parameters_here"].tolist()[0] == Architecture("A", 6, 64, 0.125).parameters


def test_errors_and_their_intervals_from_ranks() -> None:
    found = tables.errors_of(np.array([0, 0, 1, 5, 7, 0, 0, 0, 0, 4]), 10)  # top-1: 4 of 10 wrong; top-5: 2 of 10
    assert (found["top1_val_error"], found["top5_val_error"]) == (40.0, 20.0)
    # Wilson 1927: (p + z²/2n ± z √(p (1 - p) / n + z²/4n²)) / (1 + z²/n), z = 1.96.
    assert (found["top1_val_error_low"], found["top1_val_error_high"]) == pytest.approx((16.818, 68.733), abs=1e-3)
    assert (found["top5_val_error_low"], found["top5_val_error_high"]) == pytest.approx((5.668, 50.984), abs=1e-3)
    few = tables.errors_of(np.array([0, 1]), 5)
    assert few["top1_val_error"] == 50.0
    assert all(math.isnan(few[f"top5_val_error{end}"]) for end in ("", "_low", "_high"))


def test_table_7_takes_the_rows_of_tables_5_and_6() -> None:
    views = tables.views_of(7)
    assert views[:3] == [paper.rows(6)[3].views, paper.rows(5)[5].views, paper.rows(6)[0].views]
    assert views[3:] == [()] * 12
    assert tables.views_of(1) == tables.views_of(2) == []


def test_a_subset_cannot_pass_for_the_whole(tmp_path: Path) -> None:
    make_run(tmp_path, Run("A", S256))
    data = dataclasses.replace(dataset_of(), subset="3 of 10 shards")
    assert "Only a subset of the data: 3 of 10 shards." not in tables.table3(Scores(tmp_path, data)).remarks  # not run
    plant(tmp_path, Run("A", S256), 256, RIGHT)
    assert "Only a subset of the data: 3 of 10 shards." in tables.table3(Scores(tmp_path, data)).remarks
