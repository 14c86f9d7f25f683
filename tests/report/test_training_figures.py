"""Figures of the training: curves, drops of the rate, filters."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from vggrepro.report import style, training_figures


def test_rates_that_fall_are_drops() -> None:
    frame = pd.DataFrame({"epoch": [1, 2, 3, 4, 5], "learning_rate": [0.01, 0.02, 0.002, 0.002, 0.0002]})
    assert training_figures.drops(frame) == [(2.0, 0.002), (4.0, 0.0002)]
    assert training_figures.drops(frame[:1]) == []


@pytest.mark.parametrize("top5", [20.0, math.nan])
def test_training_has_loss_above_errors_and_lines_at_drops(top5: float) -> None:
    epochs = pd.DataFrame(
        {"epoch": [1.0, 2], "learning_rate": [0.1, 0.01], "loss": [2.0, 1.0], "top1_error": [60.0, 50]}
    )
    between = pd.DataFrame({"epoch": [0.5, 1.5], "loss": [2.5, 1.2]})
    above, below = training_figures.training(epochs.assign(top5_error=top5), between, "D").axes
    assert [list(line.get_ydata()) for line in above.get_lines()] == [[2.5, 1.2], [2.0, 1.0], [0, 1]]
    assert list(above.get_lines()[1].get_xdata()) == [0.5, 1.5]  # the mean of an epoch at its middle
    assert list(above.get_lines()[-1].get_xdata()) == [1.0, 1.0]
    assert [text.get_text() for text in above.texts] == ["0.01"]
    labels = [text.get_text() for text in below.get_legend().get_texts()]
    assert labels == (["top-1"] if math.isnan(top5) else ["top-1", "top-5"])


def test_names_of_runs_are_taken_as_they_are() -> None:
    frame = pd.DataFrame({"epoch": [1.0], "top1_error": [50.0]})
    text = style.svg(training_figures.all_runs({"_a$b$<c>": frame}, {"_a$b$<c>": ("A", "256")}))
    assert "_a$b$&lt;c&gt;" in text


def test_filters_are_tiles_around_grey() -> None:
    weights = np.zeros((3, 3, 2, 2), np.float32)
    weights[0, 0] = [[2, -2], [1, 0]]  # red alone; the largest is 2
    picture = training_figures.tiles(weights, columns=2)
    assert picture.shape == (5, 5, 4)
    assert picture[0, 0].tolist() == [255, 128, 128, 255]
    assert picture[0, 1].tolist() == [0, 128, 128, 255]
    assert picture[1, 0].tolist() == [191, 128, 128, 255]
    assert picture[3:, :2, :3].tolist() == [[[128] * 3] * 2] * 2  # a filter of zeros
    assert picture[2].tolist() == picture[3:, 3:].reshape(-1, 4)[:1].repeat(5, 0).tolist() == [[0] * 4] * 5


@pytest.mark.parametrize("count", [8, 64])
def test_filters_are_as_many_as_the_layer_has(count: int) -> None:
    weights = np.random.default_rng(0).normal(size=(count, 3, 3, 3))
    image = training_figures.filters(weights).axes[0].get_images()[0].get_array()
    assert image is not None
    assert (np.asarray(image)[..., 3] == 255).sum() == count * 9


def test_other_seeds_curves_are_thin_lines() -> None:
    epochs = pd.DataFrame({"epoch": [1.0, 2.0], "learning_rate": 0.1, "loss": [2.0, 1.0], "top1_error": [60.0, 50.0]})
    epochs["top5_error"] = math.nan
    other = epochs.assign(loss=[3.0, 2.0], top1_error=[70.0, 65.0])
    drawn = training_figures.training(epochs, pd.DataFrame(columns=["epoch", "loss"]), "D", [other])
    above, below = ([list(np.asarray(line.get_ydata())) for line in axes.get_lines()] for axes in drawn.axes)
    assert above == [[3.0, 2.0], [2.0, 1.0]]
    assert below == [[70.0, 65.0], [60.0, 50.0]]
