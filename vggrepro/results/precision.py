"""Measures of a classifier: average precision as PASCAL VOC defines it, and mean class recall (Appendix B)."""

from __future__ import annotations

import numpy as np


def _curve(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """True positives and precision after each image, the best score first; and the number of positives.

    Images with label 0 ("difficult") are left out, as the devkit's VOCevalcls does. Equal scores keep their order.
    """
    counted = labels != 0
    order = np.argsort(-scores[counted], kind="stable")
    true = np.cumsum(labels[counted][order] > 0)
    return true, true / np.arange(1, len(true) + 1), int(true[-1]) if len(true) else 0


def eleven_point(scores: np.ndarray, labels: np.ndarray) -> float:
    """VOC-2007's average precision: the mean of the best precision at recall 0, 0.1, … 1 or more.

    Args:
        scores: (n,), larger is more likely.
        labels: (n,), 1, -1 or 0 for difficult.

    Returns:
        per cent; NaN without a positive image.
    """
    true, precision, positives = _curve(scores, labels)
    if not positives:
        return float("nan")
    # In whole numbers, so that a recall of exactly 0.3 counts for 0.3.
    best = [precision[10 * true >= tenth * positives].max() for tenth in range(11)]
    return 100 * float(np.mean(best))


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """The average precision of VOC-2010 and later: the area under the precision curve, made monotonous.

    Arguments and result are as in `eleven_point`.
    """
    true, precision, positives = _curve(scores, labels)
    if not positives:
        return float("nan")
    envelope = np.maximum.accumulate(precision[::-1])[::-1]
    return 100 * float((np.diff(true, prepend=0) * envelope).sum() / positives)


def mean_class_recall(predicted: np.ndarray, labels: np.ndarray) -> float:
    """The mean over classes of the share of their images that are recognised, in per cent.

    Args:
        predicted: (n,) int, the answered class of each image.
        labels: (n,) int, its true class.
    """
    return 100 * float(np.mean([(predicted[labels == label] == label).mean() for label in np.unique(labels)]))
