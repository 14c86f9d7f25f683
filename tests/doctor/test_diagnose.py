"""The doctor finds what is broken, by itself, and never breaks with it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from nets import random_run
from typer.testing import CliRunner

from vggrepro.cli import app
from vggrepro.data import synsets
from vggrepro.data.dataset import Dataset, load
from vggrepro.doctor import diagnose
from vggrepro.doctor.diagnosis import BROKEN, OK, WARNING, Diagnosis, guarded, table
from vggrepro.nets import weights
from vggrepro.paper import Architecture
from vggrepro.system.files import read_json, write_json


def of(diagnoses: list[Diagnosis], check: str) -> Diagnosis:
    return next(diagnosis for diagnosis in diagnoses if diagnosis.check == check)


# The command


def test_all_is_well(dataset: Dataset, tmp_path: Path) -> None:
    random_run(tmp_path / "runs" / "A-256")
    command = ["doctor", "--data", str(dataset.folder), "--runs", str(tmp_path / "runs")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert not [line for line in lines if line.startswith("broken")]
    columns = [line.split(maxsplit=2) for line in lines]
    assert ["ok", "python"] in [column[:2] for column in columns]
    count = Architecture("A", 6, 64, 1 / 32).parameters
    assert any(line.endswith(f"finished, {count:,} weights, all finite") for line in lines)
    assert any("photos: 30 train, 18 val; 6 classes, preset demo" in line for line in lines)


def test_a_broken_run_ends_with_2(dataset: Dataset, tmp_path: Path) -> None:
    run = random_run(tmp_path / "runs" / "A-256")
    data = bytearray(run.weights_path.read_bytes())
    data[-5] ^= 1
    run.weights_path.write_bytes(data)
    command = ["doctor", "A-256", "--data", str(dataset.folder), "--runs", str(tmp_path / "runs")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 2
    assert "its contents do not have its hash" in result.stdout


def test_the_table_has_columns() -> None:
    diagnoses = [Diagnosis(OK, "a", "fine"), Diagnosis(WARNING, "longer", "odd", "do this")]
    assert table(diagnoses) == "ok       a       fine\nwarning  longer  odd\n" + " " * 17 + "→ do this"


def test_a_check_that_fails_is_a_diagnosis() -> None:
    def check() -> Diagnosis:
        raise RuntimeError("operator torchvision::nms does not exist\nmore")

    (found,) = guarded("x", check)
    assert (found.state, found.check) == (BROKEN, "x")
    assert found.result == "the check failed: RuntimeError: operator torchvision::nms does not exist"


# The data set


def test_no_data_set_is_a_warning_a_damaged_one_is_broken(dataset: Dataset, tmp_path: Path) -> None:
    assert diagnose.data_set(tmp_path / "none")[0].state == WARNING
    next(dataset.folder.glob("train-*.arrow")).unlink()
    assert of(diagnose.data_set(dataset.folder), "shards") == Diagnosis(
        BROKEN, "shards", "train-00000.arrow is missing", "prepare the data set again"
    )
    (dataset.folder / "dataset.json").write_text("{")
    (found,) = guarded("data set", lambda: diagnose.data_set(dataset.folder))
    assert (found.state, "damaged JSON" in found.result) == (BROKEN, True)


def test_a_cut_shard_is_named(dataset: Dataset) -> None:
    shard = next(dataset.folder.glob("val-*.arrow"))
    shard.write_bytes(shard.read_bytes()[:-300])
    found = of(diagnose.data_set(dataset.folder), "shards")
    assert found.state == BROKEN
    assert found.result.startswith(f"{shard}: damaged shard")


def reordered(dataset: Dataset, classes: list[str]) -> Dataset:
    path = dataset.folder / "dataset.json"
    write_json(path, read_json(path) | {"classes": classes, "words": classes})
    return load(dataset.folder)


def test_class_order(dataset: Dataset) -> None:
    assert diagnose.class_order(dataset).result == "names, sorted (no wnids)"
    wnids = sorted(synsets.table())[:6]
    assert diagnose.class_order(reordered(dataset, wnids)).result == "sorted by wnid"
    found = diagnose.class_order(reordered(dataset, wnids[::-1]))
    assert (found.state, found.result[:25]) == (WARNING, "the wnids are not sorted:")


def test_the_first_validation_images(dataset: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of the 1000 classes, with the labels of another order."""
    import vggrepro.data.dataset as stage

    class Few:
        labels = np.array([65, 970, 230, 489])

        def __init__(self, dataset: Dataset, name: str) -> None:
            assert name == "val"

        def __len__(self) -> int:
            return 4

        def key(self, place: int) -> str:
            return f"val/ILSVRC2012_val_{place + 1:08}.JPEG"

    monkeypatch.setattr(stage, "Split", Few)
    path = dataset.folder / "dataset.json"
    wnids = list(synsets.table())
    write_json(path, read_json(path) | {"classes": wnids, "words": wnids, "devkit_ids": [1] * 1000})
    (found,) = guarded("class order", lambda: diagnose.class_order(load(dataset.folder)))
    assert (found.state, "ILSVRC2012_val_00000004 has class index 489, not 809" in found.result) == (BROKEN, True)
    Few.labels = np.array([65, 970, 230, 809])
    expected = "sorted by wnid; the first 4 validation images have the known classes"
    assert diagnose.class_order(load(dataset.folder)) == Diagnosis(OK, "class order", expected)


# Runs


def test_runs_of_every_state(dataset: Dataset, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    assert diagnose.all_runs(dataset.folder, runs, (), 9)[0].result == f"none in {runs}"
    random_run(runs / "A-256")
    unfinished = random_run(runs / "B-256", net="B")
    unfinished.weights_path.unlink()
    nan = random_run(runs / "C-256", net="C")
    tensors, state = weights.load(nan.weights_path)
    tensors["conv1_1.bias"][0] = torch.nan
    weights.save(nan.weights_path, tensors, state)
    (random_run(runs / "D-256", net="D").config_path).write_text(json.dumps({"net": "D"}))
    diagnoses = diagnose.all_runs(dataset.folder, runs, (), 60)
    assert [(f.state, f.check) for f in diagnoses] == [
        (OK, "A-256"),
        (OK, "B-256"),
        (BROKEN, "C-256"),
        (BROKEN, "D-256"),
    ]
    assert diagnoses[1].result == "not finished"
    assert diagnoses[2].result == "conv1_1.bias holds values that are no finite numbers"
    late = diagnose.all_runs(dataset.folder, runs, (), -1)
    assert [f.result for f in late] == ["not checked, to save time: A-256, B-256, C-256, D-256"]
    named = diagnose.all_runs(dataset.folder, runs, ["A-256"], -1)
    assert [f.check for f in named] == ["A-256"]
