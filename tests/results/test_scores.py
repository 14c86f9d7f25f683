"""Which posterior files the tables use, and why they refuse others."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from frames import line, notes_of
from planted import RIGHT, dataset_of, make_run, multi_scale, plant

from vggrepro.data.dataset import Dataset
from vggrepro.paper import S256, Run
from vggrepro.results import tables
from vggrepro.results.scores import Scores
from vggrepro.runs.folder import RunFolder


def test_a_command_that_fills_a_folder_names_its_seed(tmp_path: Path) -> None:
    make_run(tmp_path, Run("A", S256), seed=2)
    make_run(tmp_path, Run("B", S256), seed=None)  # as an imported run has it
    notes = tables.table3(Scores(tmp_path, dataset_of())).notes
    assert any("`vggrepro train A-LRN --scale 256 --seed 2`, then `vggrepro evaluate" in note for note in notes)


@pytest.mark.parametrize(
    ("origin", "reason"),
    [
        ({"weights": "old"}, "other weights"),
        ({"fingerprint": "old"}, "another data set"),
        ({"q_pixels": 256}, "another crop size"),
        ({"split": "test"}, "test, dense, Q = 256 by its metadata"),
    ],
)
def test_stale_posteriors_are_refused(tmp_path: Path, origin: dict[str, Any], reason: str) -> None:
    run = Run("A", S256)
    make_run(tmp_path, run)
    path = plant(tmp_path, run, 256, RIGHT, **origin)
    table = tables.table3(Scores(tmp_path, dataset_of()))
    row = line(table, net="A")
    assert math.isnan(row["top1_val_error"])
    assert notes_of(table, row) == [f"Not used: {path} ({reason}). Renew: `vggrepro evaluate A-256 --dense`."]


def test_a_renamed_file_is_refused(tmp_path: Path) -> None:
    make_run(tmp_path, Run("A", S256))
    path = plant(tmp_path, Run("A", S256), 256, RIGHT, "multicrop")
    path.rename(path.with_name("val-dense-q256.parquet"))
    table = tables.table3(Scores(tmp_path, dataset_of()))
    assert "(val, multicrop, Q = 256 by its metadata)" in table.notes[0]


def test_posteriors_of_a_run_in_training_are_refused(tmp_path: Path) -> None:
    folder = make_run(tmp_path, Run("A", S256))
    plant(tmp_path, Run("A", S256), 256, RIGHT)
    folder.weights_path.rename(folder.checkpoint_path)
    table = tables.table3(Scores(tmp_path, dataset_of()))
    assert "(earlier weights, while the run is being trained again)" in table.notes[0]
    assert "`vggrepro train A --scale 256`, then `vggrepro evaluate A-256 --dense`" in table.notes[0]


def test_a_run_in_the_wrong_folder_is_refused(tmp_path: Path) -> None:
    make_run(tmp_path, Run("A", S256), net="B")
    plant(tmp_path, Run("A", S256), 256, RIGHT)
    table = tables.table3(Scores(tmp_path, dataset_of()))
    assert "(B-256 by the run's config.json)" in table.notes[0]


@pytest.mark.parametrize(
    ("data", "reason"),
    [(dataset_of(images=5), "4 images instead of 5"), (dataset_of(classes=7), "6 classes instead of 7")],
)
def test_posteriors_of_another_size_are_refused(tmp_path: Path, data: Dataset, reason: str) -> None:
    make_run(tmp_path, Run("A", S256))
    plant(tmp_path, Run("A", S256), 256, RIGHT)
    table = tables.table3(Scores(tmp_path, data))
    assert reason in notes_of(table, line(table, net="A"))[0]


def test_damaged_posteriors_are_a_footnote(tmp_path: Path) -> None:
    make_run(tmp_path, Run("A", S256))
    path = plant(tmp_path, Run("A", S256), 256, RIGHT)
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    table = tables.table3(Scores(tmp_path, dataset_of()))
    (note,) = notes_of(table, line(table, net="A"))
    assert note.startswith(f"Not used: {path} (damaged parquet file")
    plant(tmp_path, Run("A", S256), 256, [*RIGHT[:3], [2.0, 3, 0, 0, 0, 0]])
    table = tables.table3(Scores(tmp_path, dataset_of()))
    (note,) = notes_of(table, line(table, net="A"))
    assert note.startswith(f"Not used: {path} (row 3 is no distribution (sum 5.0000")
    assert note.endswith("Renew: `vggrepro evaluate A-256 --dense`.")


def test_posteriors_of_another_tool_enter_and_are_marked(tmp_path: Path) -> None:
    make_run(tmp_path, Run("A", S256))
    path = plant(tmp_path, Run("A", S256), 256, RIGHT)
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)
    table = tables.table3(Scores(tmp_path, dataset_of()))
    row = line(table, net="A")
    assert row["top1_val_error"] == 0.0
    assert notes_of(table, row) == ["Posteriors of another tool, without metadata: weights and data cannot be checked."]


def test_weights_are_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    multi_scale(tmp_path)
    hashed: list[str] = []
    weights_hash = RunFolder.weights_hash

    def counting_hash(run: RunFolder) -> str:
        hashed.append(run.name)
        return weights_hash(run)

    monkeypatch.setattr(RunFolder, "weights_hash", counting_hash)
    tables.tables_of(Scores(tmp_path, dataset_of()))
    assert len(hashed) == len(set(hashed)) == 7
