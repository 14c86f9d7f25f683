"""Answers by class and calibration, against scikit-learn's confusion matrix and bins counted one image at a time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from planted import RIGHT, WRONG, dataset_of, make_run, plant
from sklearn.metrics import confusion_matrix, top_k_accuracy_score

from vggrepro.paper import S256, Run, View
from vggrepro.posteriors.files import Rows
from vggrepro.results.answers import BINS, Answers, answers_of, best_answers
from vggrepro.results.scores import Scores

VIEW = View(Run("A", S256), 256, "dense")
DATA = dataset_of(classes=7, words=("ant, insect", "bee", "cat", "dog", "eel", "fox", "gnu"))


def drawn(images: int = 300, classes: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Posteriors (images, classes) that favour the true class, and labels; the last class has no image."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes - 1, images)
    scores = rng.gumbel(size=(images, classes)) + 2 * np.eye(classes)[labels]
    return np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True), labels


def made() -> tuple[Answers, np.ndarray, np.ndarray]:
    posteriors, labels = drawn()
    keys = [f"{i}" for i in range(len(labels))]
    halves = (slice(None, 100), slice(100, None))
    batches = [Rows(keys[part], labels[part].astype(np.int32), posteriors[part]) for part in halves]
    return answers_of(VIEW, batches), posteriors, labels


def test_answers_are_counted_by_class() -> None:
    answers, posteriors, labels = made()
    reference = confusion_matrix(labels, posteriors.argmax(axis=1), labels=range(7))
    assert answers.counts.tolist() == reference.tolist()
    frame = answers.confusion(DATA)
    assert frame["images"].sum() == 300
    assert frame.query("`class` == 'class 2' and answer == 'class 4'")["images"].item() == reference[2, 4]


def test_each_class_has_its_errors_and_its_most_frequent_mistake() -> None:
    answers, posteriors, labels = made()
    frame = answers.classes(DATA).set_index("class")
    assert len(frame) == 6  # the last class has no image
    assert frame["top1_error"].is_monotonic_decreasing
    mine = labels == 0
    right = top_k_accuracy_score(labels[mine], posteriors[mine], k=5, labels=range(7))
    assert frame.loc["class 0", "top5_error"] == pytest.approx(100 * (1 - right))
    wrong = posteriors[mine].argmax(axis=1)
    wrong = wrong[wrong != 0]
    assert frame.loc["class 0", "top1_error"] == pytest.approx(100 * len(wrong) / mine.sum())
    assert frame.loc["class 0", "taken_for"] == f"class {np.bincount(wrong).argmax()}"
    assert frame.loc["class 0", "words"] == "ant, insect"


def test_the_calibration_error_is_the_mean_distance_over_bins() -> None:
    answers, posteriors, labels = made()
    confidence, right = posteriors.max(axis=1), posteriors.argmax(axis=1) == labels
    total = 0.0
    for low in range(BINS):
        inside = [i for i in range(300) if low / BINS <= confidence[i] < (low + 1) / BINS]
        if inside:
            total += len(inside) / 300 * abs(confidence[inside].mean() - right[inside].mean())
    assert answers.calibration_error == pytest.approx(100 * total)
    assert answers.confidence == pytest.approx(100 * confidence.mean())
    assert answers.right == pytest.approx(100 * right.mean())
    bins = answers.calibration()
    assert bins["images"].sum() == 300
    assert ((bins["right_low"] <= bins["right"]) & (bins["right"] <= bins["right_high"])).all()


def test_an_answer_of_full_confidence_is_in_the_last_bin() -> None:
    answers = answers_of(VIEW, [Rows(["a"], np.array([1], np.int32), np.array([[0.0, 1.0]]))])
    assert answers.calibration()[["from", "to", "right"]].to_numpy().tolist() == [[pytest.approx(1400 / 15), 100, 100]]
    assert np.isnan(answers.classes(dataset_of(classes=2))["top5_error"]).all()


def test_the_file_of_the_smallest_error_is_taken(tmp_path: Path) -> None:
    make_run(tmp_path, Run("B", S256))
    for q, rows in ((224, WRONG), (256, RIGHT)):
        plant(tmp_path, Run("B", S256), q, rows)
    best = best_answers(Scores(tmp_path, dataset_of()))
    assert best is not None
    assert best.view == View(Run("B", S256), 256, "dense")
    assert best_answers(Scores(tmp_path / "none", dataset_of())) is None
