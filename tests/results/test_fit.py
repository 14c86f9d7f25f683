"""Training error beside validation error, where the training images were evaluated too."""

from __future__ import annotations

from pathlib import Path

import pytest
from planted import RIGHT, WRONG, dataset_of, make_run, plant

from vggrepro.paper import S256, Run
from vggrepro.results.fit import fit
from vggrepro.results.scores import Scores

A = Run("A", S256)


def of_training(runs: Path, images: int = 8, **origin: str) -> Path:
    """Posteriors of training images, a quarter of them wrong."""
    rows, labels = [*RIGHT, *RIGHT[:2], *WRONG[:2]], [0, 1, 2, 5, 0, 1, 2, 5]
    path = plant(runs, A, 256, rows[:images], labels=labels, split="train", **origin)
    return path.rename(path.with_name("train-dense-q256.parquet"))


def test_the_gap_is_validation_minus_training(tmp_path: Path) -> None:
    make_run(tmp_path, A, recipe={"preset": "demo", "held_out": 0.05})
    of_training(tmp_path)
    plant(tmp_path, A, 256, WRONG)
    table = fit(Scores(tmp_path, dataset_of(train=8)))
    assert table is not None
    row = table.frame.iloc[0]
    assert (row["run"], row["method"], row["Q"]) == ("A-256", "dense", 256)
    assert (row["train"], row["val"], row["gap"]) == (25.0, 75.0, 50.0)
    # Newcombe 1998, method 10: Wilson's intervals of 3 of 4 and of 2 of 8 are [30.06; 95.44] and [7.15; 59.07] %.
    assert row["low"] == pytest.approx(50 - (44.94**2 + 34.07**2) ** 0.5, abs=0.02)
    assert row["high"] == pytest.approx(50 + (20.44**2 + 17.85**2) ** 0.5, abs=0.02)
    assert "held out" in table.notes[0]


@pytest.mark.parametrize("origin", [{"weights": "of an earlier training"}, {"fingerprint": "other"}])
def test_files_of_other_weights_or_data_are_not_used(tmp_path: Path, origin: dict[str, str]) -> None:
    make_run(tmp_path, A)
    of_training(tmp_path, **origin)
    plant(tmp_path, A, 256, RIGHT)
    assert fit(Scores(tmp_path, dataset_of(train=8))) is None


def test_without_one_of_the_two_there_is_no_gap(tmp_path: Path) -> None:
    make_run(tmp_path, A)
    of_training(tmp_path)
    assert fit(Scores(tmp_path, dataset_of(train=8))) is None
    plant(tmp_path, A, 256, RIGHT)
    assert fit(Scores(tmp_path, dataset_of(train=9))) is None  # not all training images
