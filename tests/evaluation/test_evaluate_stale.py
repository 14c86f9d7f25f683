"""Posterior files that no longer belong to the run are computed again, and why is said."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from nets import (
    CPU,
    random_run,
)

from vggrepro.data.dataset import Dataset
from vggrepro.evaluation.evaluate import evaluate, missing_files, wanted_files
from vggrepro.posteriors import files as posterior_files
from vggrepro.posteriors.protocol import Protocol
from vggrepro.runs.folder import RunFolder
from vggrepro.system.files import read_json, write_json


def test_posteriors_of_other_weights_are_computed_again_and_said(
    run: RunFolder, dataset: Dataset, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    protocol = Protocol(qs=(224,))
    evaluate(run, dataset, protocol, CPU)
    path = run.path / "posteriors" / "val-dense-q224.parquet"
    before = pq.read_table(path)
    random_run(run.path, seed=1)
    capfd.readouterr()
    assert missing_files(run, protocol, wanted_files(run, dataset, protocol, CPU)) == {("dense", 224): "other weights"}
    assert capfd.readouterr().err == ""  # whoever asks which files are missing says nothing yet
    evaluate(run, dataset, protocol, CPU)
    assert "val-dense-q224.parquet is stale (other weights) and is computed again" in capfd.readouterr().err
    after = pq.read_table(path)
    assert posterior_files.read_origin(path).weights == run.weights_hash()
    assert np.abs(np.array(before["posterior"].to_pylist()) - after["posterior"].to_pylist()).max() > 0.01
    kept = path.read_bytes()
    evaluate(run, dataset, Protocol(("multicrop", "dense"), (224,), flip=False, grid=2), CPU)
    assert "stale" not in capfd.readouterr().err  # a variant has a file of its own
    assert path.read_bytes() == kept
    names = {p.name for p in path.parent.iterdir()}
    assert names == {path.name, "val-dense-noflip-q224.parquet", "val-multicrop-grid2-noflip-q224.parquet"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mean_rgb": [110.0, 120.0, 91.0]}, "another net input"),
        ({"input_scale": 0.0171}, "another net input"),
        ({"crop": 70}, "another crop size"),
        ({"recipe": {"resample": "bicubic"}}, "another resampling"),
    ],
)
def test_an_edited_config_makes_posteriors_stale(
    run: RunFolder, dataset: Dataset, capfd: pytest.CaptureFixture[str], changes: dict[str, Any], reason: str
) -> None:
    protocol = Protocol(qs=(224,))
    evaluate(run, dataset, protocol, CPU)
    write_json(run.config_path, read_json(run.config_path) | changes)
    evaluate(run, dataset, protocol, CPU)
    assert f"val-dense-q224.parquet is stale ({reason}) and is computed again" in capfd.readouterr().err
    evaluate(run, dataset, protocol, CPU)
    assert "dense is up to date" in capfd.readouterr().err


def test_files_that_do_not_know_their_input_stay_valid(
    run: RunFolder, dataset: Dataset, capfd: pytest.CaptureFixture[str]
) -> None:
    protocol = Protocol(qs=(224,))
    evaluate(run, dataset, protocol, CPU)
    path = run.path / "posteriors" / "val-dense-q224.parquet"
    about = json.loads(pq.read_schema(path).metadata[b"vggrepro"])
    del about["input"]
    pq.write_table(pq.read_table(path).replace_schema_metadata({b"vggrepro": json.dumps(about)}), path)
    evaluate(run, dataset, protocol, CPU)
    assert "dense is up to date" in capfd.readouterr().err


def test_posteriors_of_other_data_are_computed_again_and_said(
    run: RunFolder, dataset: Dataset, capfd: pytest.CaptureFixture[str]
) -> None:
    protocol = Protocol(qs=(224,))
    evaluate(run, dataset, protocol, CPU)
    evaluate(run, replace(dataset, fingerprint="other"), protocol, CPU)
    said = capfd.readouterr().err
    assert "val-dense-q224.parquet is stale (another data set) and is computed again" in said
    assert posterior_files.read_origin(run.path / "posteriors" / "val-dense-q224.parquet").fingerprint == "other"


def test_a_damaged_posterior_file_is_computed_again(
    run: RunFolder, dataset: Dataset, capfd: pytest.CaptureFixture[str]
) -> None:
    evaluate(run, dataset, Protocol(qs=(224,)), CPU)
    path = run.path / "posteriors" / "val-dense-q224.parquet"
    path.write_bytes(path.read_bytes()[:-30])
    evaluate(run, dataset, Protocol(qs=(224,)), CPU)
    assert "val-dense-q224.parquet is stale (damaged) and is computed again" in capfd.readouterr().err
    assert posterior_files.read_origin(path).run == "A-256"
