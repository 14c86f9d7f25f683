"""Figures of the nets and their training: curves, filters, receptive fields. `style` has the colours and markers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vggrepro.report.style import DASHES, MUTED, WIDTH, blank, colour, handle, legend, marker, styled


def drops(frame: pd.DataFrame) -> list[tuple[float, float]]:
    """Where the learning rate fell between two epochs: (epochs done by then, new rate)."""
    rates = frame["learning_rate"].to_numpy(float)
    ends = frame["epoch"].to_numpy(float)
    return [(ends[i - 1], rates[i]) for i in range(1, len(rates)) if rates[i] < rates[i - 1]]


@styled
def training(epochs: pd.DataFrame, between: pd.DataFrame, net: str, other_seeds: Sequence[pd.DataFrame] = ()) -> Figure:
    """A run's training loss, and below it the errors measured while training.

    A dotted line shows where the learning rate was dropped.

    Args:
        epochs: columns epoch (1 is the end of the first), learning_rate, loss, top1_error, top5_error.
        between: columns epoch (a fraction) and loss; may be empty.
        net: gives the colour.
        other_seeds: `epochs` of the same run trained with other seeds.
    """
    figure = Figure(figsize=(WIDTH, 3.3), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=(1, 1.1))
    shade = colour(net)
    if len(between):
        above.plot(between["epoch"], between["loss"], color=shade, alpha=0.45, linewidth=0.9)
    dots = "o" if len(epochs) <= 25 else ""
    for other in other_seeds:
        above.plot(other["epoch"] - 0.5, other["loss"], color=shade, alpha=0.45, linewidth=0.7)
        below.plot(other["epoch"], other["top1_error"], color=shade, alpha=0.45, linewidth=0.7)
    # An epoch's mean loss stands at its middle; its errors were measured at its end.
    above.plot(epochs["epoch"] - 0.5, epochs["loss"], marker=dots, markersize=3, color=shade)
    below.plot(epochs["epoch"], epochs["top1_error"], marker=dots, markersize=3, color=shade, label="top-1")
    if epochs["top5_error"].notna().any():
        line = {"color": shade, "linestyle": "--", "label": "top-5"}
        below.plot(epochs["epoch"], epochs["top5_error"], marker=dots, markersize=3, **line)
    below.legend(loc="upper right", ncols=2)
    for place, rate in drops(epochs):
        for axes in (above, below):
            axes.axvline(place, color=MUTED, linestyle=":", linewidth=1)
        label = f"{rate:.1g}"
        above.annotate(label, (place, 1), (2, -1), xycoords=above.get_xaxis_transform(), textcoords="offset points",
                       fontsize=8.5, color=MUTED, va="top")  # fmt: skip
    above.set_ylabel("training loss")
    below.set(ylabel="error (%)", xlabel="epoch")
    below.margins(y=0.25)  # room for the legend
    below.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


@styled
def receptive_fields(fields: Mapping[str, Sequence[int]], crop: int) -> Figure:
    """The receptive field of each conv. layer in order, with a line for each net and one for the crop; in pixels."""
    figure, axes = blank()
    for net, sides in fields.items():
        axes.plot(range(1, len(sides) + 1), sides, "o-", color=colour(net))
    axes.axhline(crop, color=MUTED, linestyle=(0, (4, 2)))
    axes.annotate("crop", (1, crop), (0, 3), textcoords="offset points", color=MUTED)
    axes.set(xlabel="conv. layer", ylabel="receptive field (pixels)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(figure, [handle(net, "o", colour(net), line="-") for net in fields], 5)
    return figure


@styled
def all_runs(curves: Mapping[str, pd.DataFrame], nets: Mapping[str, tuple[str, str]]) -> Figure:
    """The top-1 error after each epoch, a line for each run; `nets` gives each run's (net, S).

    Epochs are counted as the curves count them: a run of another scale may go on after the one that it starts from.
    """
    figure, axes = blank(3.9)
    handles = []
    for run, frame in curves.items():
        net, scale = nets[run]
        dash = DASHES.get(scale, "-")
        axes.plot(frame["epoch"], frame["top1_error"], linestyle=dash, color=colour(net))
        axes.plot(frame["epoch"].iloc[-1:], frame["top1_error"].iloc[-1:], marker(scale), color=colour(net))
        handles.append(handle(run, marker(scale), colour(net), line=dash))
    axes.set(xlabel="epoch", ylabel="top-1 error (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend(figure, handles, 3)
    return figure


def tiles(weights: np.ndarray, columns: int) -> np.ndarray:
    """Filters (n, 3, k, k) as one picture, uint8 (H, W, 4): zero is grey, each filter has its own scale.

    A transparent pixel separates the filters.
    """
    count, _, side, _ = weights.shape
    rows = -(-count // columns)
    picture = np.zeros((rows * (side + 1) - 1, columns * (side + 1) - 1, 4), np.uint8)
    largest = np.abs(weights).max(axis=(1, 2, 3), keepdims=True)
    scaled = 0.5 + 0.5 * weights / np.where(largest > 0, largest, 1)
    for number, pixels in enumerate(scaled.transpose(0, 2, 3, 1)):
        top, left = (number // columns) * (side + 1), (number % columns) * (side + 1)
        picture[top : top + side, left : left + side, :3] = np.rint(255 * pixels)
        picture[top : top + side, left : left + side, 3] = 255
    return picture


@styled
def filters(weights: np.ndarray) -> Figure:
    """The first layer's filters, (n, 3, k, k) over R, G, B, in the file's order."""
    columns = 16 if len(weights) > 8 else 8
    picture = tiles(np.asarray(weights, np.float64), columns)
    figure = Figure(figsize=(WIDTH, WIDTH * picture.shape[0] / picture.shape[1]))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(picture, interpolation="none")
    axes.set_axis_off()
    return figure
