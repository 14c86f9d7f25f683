"""A net's answers by class, and its confidence against its right answers, from one posterior file.

The answer to an image is the class of the largest posterior, and that posterior is its confidence.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from vggrepro.data.dataset import Dataset
from vggrepro.paper import TOP_K, View
from vggrepro.posteriors.files import Rows
from vggrepro.posteriors.means import average
from vggrepro.posteriors.ranks import true_ranks
from vggrepro.results import beyond
from vggrepro.results.beyond import Entry
from vggrepro.results.columns import NAN, TOP1
from vggrepro.results.intervals import wilson
from vggrepro.results.scores import Scores

NAMES = CLASSES, CONFUSION, CALIBRATION = "classes", "confusion", "calibration"  # of the CSV files
BINS = 15  # of equal width, as Guo et al. 2017 take them


@dataclass(frozen=True, slots=True)
class Answers:
    """The answers of a view, counted.

    `counts` (K, K): images of class i that were answered j. `late` (K,): images whose true class is not among the
    first five. `bins` (BINS, 3), by confidence from 0 to 1: images, their summed confidence, right answers.
    """

    view: View
    counts: np.ndarray
    late: np.ndarray
    bins: np.ndarray

    def classes(self, dataset: Dataset) -> pd.DataFrame:
        """A row for each class that has images, the largest top-1 error first.

        Columns: `class`, `words`, `images`, `top1_error`, `low`, `high` (its 95 % interval, Wilson), `top5_error` (%;
        NaN for five classes or fewer), `taken_for` (the most frequent wrong answer) and `taken_for_images`.
        """
        wrong = self.counts.copy()
        np.fill_diagonal(wrong, 0)
        words, records = dataset.words or dataset.classes, []
        for label in np.flatnonzero(self.counts.sum(axis=1)).tolist():
            images, mistakes = int(self.counts[label].sum()), int(wrong[label].sum())
            ends, other = wilson(mistakes, images), int(wrong[label].argmax())
            record = {"class": dataset.classes[label], "words": words[label], "images": images}
            record |= {"top1_error": 100 * mistakes / images, "low": ends.low, "high": ends.high}
            record["top5_error"] = 100 * int(self.late[label]) / images if len(self.late) > TOP_K else NAN
            record |= {"taken_for": dataset.classes[other] if mistakes else "", "taken_for_images": wrong[label, other]}
            records.append(record)
        return pd.DataFrame.from_records(records).sort_values("top1_error", ascending=False, kind="stable")

    def confusion(self, dataset: Dataset) -> pd.DataFrame:
        """How many images of each class got which answer, without the pairs that did not occur.

        Columns: `class`, `answer`, `images`.
        """
        true, answer = np.nonzero(self.counts)
        names = np.array(dataset.classes, object)
        return pd.DataFrame({"class": names[true], "answer": names[answer], "images": self.counts[true, answer]})

    def calibration(self) -> pd.DataFrame:
        """A row for each bin of confidence that has images.

        Columns: `from`, `to` (confidence in %), `images`, `confidence` (its mean, %), `right` (right answers, %),
        `right_low`, `right_high` (their 95 % interval, Wilson).
        """
        records = []
        for place in np.flatnonzero(self.bins[:, 0]).tolist():
            images, confidence, right = self.bins[place].tolist()
            ends = wilson(round(right), round(images))
            record = {"from": 100 * place / BINS, "to": 100 * (place + 1) / BINS, "images": round(images)}
            record |= {"confidence": 100 * confidence / images, "right": 100 * right / images}
            records.append(record | {"right_low": ends.low, "right_high": ends.high})
        return pd.DataFrame.from_records(records)

    @property
    def confidence(self) -> float:
        """The mean confidence, in per cent."""
        return 100 * float(self.bins[:, 1].sum() / self.bins[:, 0].sum())

    @property
    def right(self) -> float:
        """The right answers, in per cent of the images."""
        return 100 * float(self.bins[:, 2].sum() / self.bins[:, 0].sum())

    @property
    def calibration_error(self) -> float:
        """The expected calibration error in points: the mean over images of |confidence - right| of their bin."""
        return 100 * float(np.abs(self.bins[:, 1] - self.bins[:, 2]).sum() / self.bins[:, 0].sum())

    def frames(self, dataset: Dataset) -> dict[str, pd.DataFrame]:
        """The three tables by `NAMES`."""
        return {CLASSES: self.classes(dataset), CONFUSION: self.confusion(dataset), CALIBRATION: self.calibration()}


def best_view(frame: pd.DataFrame, entries: Sequence[Entry]) -> View | None:
    """The file with the smallest top-1 error; of equal ones the first in the paper's order.

    Args:
        frame: the entries, scored by `beyond.score`.
        entries: lines of one posterior file each.
    """
    if frame.empty:
        return None
    row = frame.iloc[int(frame[TOP1].to_numpy().argmin())]
    return next(entry.views[0] for entry in entries if all(row[name] == text for name, text in entry.labels.items()))


def best_answers(scores: Scores) -> Answers | None:
    """The answers of the posterior file with the smallest top-1 error, of one seed (`Scores.alone`); None without one.

    Raises:
        InputError: a damaged file.
    """
    entries = beyond.curve_rows(beyond.available(scores))
    view = best_view(beyond.score(scores, entries)[0], entries)
    return None if view is None else answers_of(view, average([scores.file(view).path], scores.images))


def answers_of(view: View, batches: Iterable[Rows]) -> Answers:
    """Counts the answers to labelled images; holds one batch at a time."""
    counts, late = np.zeros((0, 0), np.int64), np.zeros(0, np.int64)
    bins = np.zeros((BINS, 3))
    for batch in batches:
        posteriors, labels = batch.posteriors, batch.labels
        classes = posteriors.shape[1]
        if not len(late):
            counts, late = np.zeros((classes, classes), np.int64), np.zeros(classes, np.int64)
        answer, confidence = posteriors.argmax(axis=1), posteriors.max(axis=1)
        np.add.at(counts, (labels, answer), 1)
        np.add.at(late, labels[true_ranks(posteriors, labels) >= TOP_K], 1)
        place = np.minimum((confidence * BINS).astype(int), BINS - 1)
        for column, values in enumerate((np.ones(len(labels)), confidence, answer == labels)):
            bins[:, column] += np.bincount(place, weights=values, minlength=BINS)
    return Answers(view, counts, late, bins)
