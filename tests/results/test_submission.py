"""The test server's file: devkit ids by hand, file-name order, ties in class order."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from conftest import photo
from nets import CPU, random_run
from PIL import Image

from vggrepro.data.dataset import Dataset
from vggrepro.data.prepare import prepare
from vggrepro.data.sources import FolderSource
from vggrepro.errors import InputError
from vggrepro.evaluation.evaluate import evaluate
from vggrepro.posteriors.files import Rows
from vggrepro.posteriors.protocol import Protocol
from vggrepro.results import submission

IDS = (31, 7, 500, 12, 1000, 2, 90)
POSTERIORS = np.array([[0.1, 0.3, 0.05, 0.2, 0.15, 0.05, 0.15], [0, 0, 0, 0, 0, 0, 1.0]])


def batches(keys: list[str]) -> list[Rows]:
    return [Rows([key], np.array([-1]), row[None]) for key, row in zip(keys, POSTERIORS, strict=True)]


def test_lines_by_hand() -> None:
    first, second = "7 12 1000 90 31", "90 31 7 500 12"  # ties keep the order of classes
    assert submission.lines(batches(["a_00000001.JPEG", "a_00000002.JPEG"]), IDS) == [first, second]
    assert submission.lines(batches(["a_00000002.JPEG", "a_00000001.JPEG"]), IDS) == [second, first]


def test_the_file(dataset: Dataset, tmp_path: Path) -> None:
    path = tmp_path / "new" / "submission.txt"
    own = replace(dataset, devkit_ids=IDS)
    assert submission.write(path, batches(["1", "2"]), own) == 2
    assert path.read_text() == "7 12 1000 90 31\n90 31 7 500 12\n"
    with pytest.raises(InputError, match=r"has no ILSVRC devkit ids; only ILSVRC-2012's thousand classes"):
        submission.write(tmp_path / "other.txt", batches(["1", "2"]), dataset)
    assert not (tmp_path / "other.txt").exists()


def test_averaged_posteriors_of_the_test_split(photos: Path, tmp_path: Path) -> None:
    """Six unlabelled images, in name order; two runs, averaged."""
    own = Path(shutil.copytree(photos, tmp_path / "photos"))
    (own / "test").mkdir()
    for number in range(6):
        Image.fromarray(photo(number, 70 + number, 90, 70)).save(own / "test" / f"{number}.png")
    data = replace(
        prepare(FolderSource(own), tmp_path / "data", "demo", workers=0), devkit_ids=(60, 50, 40, 30, 20, 10)
    )
    runs = [random_run(tmp_path / "runs" / f"A-{seed}", seed=seed) for seed in (0, 1)]
    for run in runs:
        with pytest.raises(InputError, match=r"vggrepro evaluate A-\d --dense --split test"):
            submission.submit([run], ("dense",), "test", data, tmp_path / "s.txt")
        evaluate(run, data, Protocol(split="test"), CPU)
    assert submission.submit(runs, ("dense",), "test", data, tmp_path / "s.txt") == 6
    files = [run.path / "posteriors" / f"test-dense-q{q}.parquet" for run in runs for q in (224, 256, 288)]
    mean = np.mean([np.array(pq.read_table(file)["posterior"].to_pylist()) for file in files], axis=0)
    best = np.argsort(-mean, axis=1)[:, :5]
    expected = [" ".join(str(60 - 10 * label) for label in row) for row in best.tolist()]
    assert (tmp_path / "s.txt").read_text().splitlines() == expected
    seven = replace(data, classes=(*data.classes, "gnu"))
    with pytest.raises(InputError, match=r"has 6 classes, .* 7; give its data set with --data"):
        submission.submit(runs, ("dense",), "test", seven, tmp_path / "other.txt")
    for file in files:  # as another tool writes them
        pq.write_table(pq.read_table(file).replace_schema_metadata(None), file)
    assert submission.submit(runs, ("dense",), "test", data, tmp_path / "foreign.txt") == 6
    assert (tmp_path / "foreign.txt").read_bytes() == (tmp_path / "s.txt").read_bytes()


def test_posteriors_of_another_data_set_are_not_submitted(dataset: Dataset, tmp_path: Path) -> None:
    run = random_run(tmp_path / "runs" / "A-256")
    evaluate(run, dataset, Protocol(), CPU)
    with pytest.raises(InputError, match="comes from another data set"):
        submission.submit([run], ("dense",), "val", replace(dataset, fingerprint="0" * 64), tmp_path / "s.txt")
