"""Average precision against an example by hand and against scikit-learn's curve; mean class recall."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, balanced_accuracy_score, precision_recall_curve

from vggrepro.results.precision import average_precision, eleven_point, mean_class_recall


def test_an_example_by_hand() -> None:
    """Ranked: right, wrong, right, wrong, wrong, right. Precision 1, 2/3, 1/2 at recall 1/3, 2/3, 1."""
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    labels = np.array([1, -1, 1, -1, -1, 1])
    assert average_precision(scores, labels) == pytest.approx(100 * (1 + 2 / 3 + 1 / 2) / 3)
    # recall 0, 0.1, 0.2, 0.3: 1; 0.4, 0.5, 0.6: 2/3; 0.7, 0.8, 0.9, 1: 1/2
    assert eleven_point(scores, labels) == pytest.approx(100 * (4 * 1 + 3 * 2 / 3 + 4 / 2) / 11)


def test_difficult_images_are_left_out() -> None:
    scores, labels = np.array([0.9, 0.8, 0.7, 0.6]), np.array([0, 1, -1, 1])
    for measure in (average_precision, eleven_point):
        assert measure(scores, labels) == measure(scores[1:], labels[1:])


def test_a_class_without_positive_images_has_no_precision() -> None:
    assert np.isnan(average_precision(np.ones(3), -np.ones(3)))
    assert np.isnan(eleven_point(np.ones(3), np.array([-1, 0, -1])))


@given(st.integers(0, 2**31), st.integers(2, 60))
def test_both_measures_follow_scikit_learns_curve(seed: int, images: int) -> None:
    rng = np.random.default_rng(seed)
    scores, labels = rng.permutation(images) / images, rng.choice([-1, 1], images)
    labels[0] = 1
    # Without its last point, a precision of 1 at recall 0 that no image has.
    precision, recall = (values[:-1] for values in precision_recall_curve(labels > 0, scores)[:2])
    best = [precision[recall >= tenth / 10 - 1e-12].max() for tenth in range(11)]
    assert eleven_point(scores, labels) == pytest.approx(100 * np.mean(best))
    monotonous = np.maximum.accumulate(precision)  # scikit-learn's recall falls
    area = -(np.diff(recall, append=0) * monotonous).sum()
    assert average_precision(scores, labels) == pytest.approx(100 * area)
    assert average_precision(scores, labels) >= 100 * average_precision_score(labels > 0, scores) - 1e-9


def test_mean_class_recall_is_the_balanced_accuracy() -> None:
    rng = np.random.default_rng(0)
    labels, predicted = rng.integers(0, 5, 200), rng.integers(0, 5, 200)
    assert mean_class_recall(predicted, labels) == pytest.approx(100 * balanced_accuracy_score(labels, predicted))
