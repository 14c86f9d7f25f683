"""Figures of errors, claims and answers. Each function turns a frame into a matplotlib figure; it reads no files.

Ours is filled, the paper's hollow on a dashed line. With several seeds the marker is their mean, and each seed is a
small point. `style` has the colours and markers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import matplotlib.colors
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from vggrepro import paper
from vggrepro.report.style import (
    COLOURS,
    DASHES,
    GROUND,
    HEIGHT,
    INK,
    LINE,
    MARKERS,
    MUTED,
    PAPER_DASHES,
    WIDTH,
    blank,
    colour,
    handle,
    legend,
    marker,
    styled,
)
from vggrepro.results import columns

MEASURES = {name: f"{columns.MEASURES[name].short} error (%)" for name in columns.ERRORS}
WIDE = 4.4  # inches: the figure of the claims has a wider card and longer labels
SEED: dict[str, Any] = {"markersize": 4, "alpha": 0.7, "zorder": 3}  # the look of one seed of several, below the mean


def weight_layers(net: str) -> int:
    """Convolutional and FC layers (Table 1)."""
    return sum(isinstance(layer, paper.Conv) for block in paper.blocks(net) for layer in block) + 3


def _panels(frame: pd.DataFrame, measure: str) -> tuple[Figure, Axes, Axes]:
    """A figure, and the axes of our errors and of the paper's.

    They are the same axes, unless the numbers lie so far apart that neither side's differences could be seen: then
    ours stand above the paper's.
    """
    ours, theirs = frame[measure].dropna(), frame[f"{measure}_paper"].dropna()
    spread = max((side.max() - side.min() for side in (ours, theirs) if len(side)), default=0)
    if ours.empty or theirs.empty or max(ours.min() - theirs.max(), theirs.min() - ours.max()) <= spread / 2:
        figure, axes = blank()
        axes.set_ylabel(MEASURES[measure])
        return figure, axes, axes
    figure = Figure(figsize=(WIDTH, 1.4 * HEIGHT), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=(1.2, 1))
    above.set_ylabel(f"ours: {MEASURES[measure]}")
    below.set_ylabel("the paper's (%)")
    return figure, above, below


def _point(axes: Axes, x: float, row: Mapping[Any, Any], measure: str, net: str, scale: str) -> None:
    """Draws our error, if there is one, as a filled marker with its interval, or with a small point for each seed."""
    value, low, high = (float(row.get(f"{measure}{end}", np.nan)) for end in ("", "_low", "_high"))
    if not np.isfinite(value):
        return
    whisker = [[value - low], [high - value]] if np.isfinite([low, high]).all() else None
    each = _each(row, measure)
    axes.plot([x] * len(each), each, ".", color=colour(net), **SEED)
    axes.errorbar(
        x,
        value,
        yerr=whisker,
        fmt=marker(scale),
        color=colour(net),
        markeredgecolor=GROUND,
        markeredgewidth=0.6,
        elinewidth=1.1,
        capsize=2,
        zorder=4,
    )


def _each(row: Mapping[Any, Any], measure: str) -> list[float]:
    """Our error with each seed; nothing with one seed."""
    return [float(text) for text in str(row.get(f"{measure}_each", "")).split()]


def _several(frame: pd.DataFrame, measure: str) -> bool:
    """Whether a frame is of several seeds."""
    return f"{measure}_each" in frame


def _shift(name: str, names: list[str]) -> float:
    """The sideways shift of one of several lines, so that their intervals do not hide each other."""
    return 0.09 * (names.index(name) - (len(names) - 1) / 2)


def _paper_point(axes: Axes, x: float, y: float, net: str, scale: str) -> None:
    axes.plot(x, y, marker(scale), color=colour(net), markerfacecolor=GROUND, markersize=4.5, zorder=3)


def _ours(several: bool) -> list[Line2D]:
    """Legend entries of our errors: with one seed its interval, with several their mean and each."""
    if several:
        return [handle("ours, mean", line="-"), _one_seed()]
    return [handle("ours, 95 %", line="-")]


def _one_seed(shade: str = MUTED) -> Line2D:
    return Line2D([], [], color=shade, marker=".", linestyle="none", label="one seed", **SEED)


def _ours_and_paper(scales: list[str], several: bool) -> list[Line2D]:
    """Legend entries: what filled and hollow mean, and the marker and the paper's line of each of these scales."""
    handles = [*_ours(several), handle("the paper", hollow=True, line="--")]
    return handles + [handle(f"S = {s}", marker(s), hollow=True, line=PAPER_DASHES.get(s, "--")) for s in scales]


@styled
def against_depth(frame: pd.DataFrame, measure: str) -> Figure:
    """Error by net, shallow to deep, a line for each training scale: the frame of Table 3."""
    figure, axes, papers = _panels(frame, measure)
    nets = [net for net in paper.NETS if net in set(frame["net"])]
    scales = list(dict.fromkeys(frame["S"]))
    for scale in scales:
        lines = frame[frame["S"] == scale].set_index("net")
        order = [net for net in nets if net in lines.index]
        places = np.array([nets.index(net) for net in order]) + _shift(scale, scales)
        dash = PAPER_DASHES.get(scale, "--")
        papers.plot(places, lines.loc[order, f"{measure}_paper"], linestyle=dash, color=MUTED, linewidth=1)
        ran = np.isfinite(lines.loc[order, measure].to_numpy(float))
        axes.plot(places[ran], lines.loc[order, measure][ran], "-", color=MUTED, linewidth=1)
        for net, place in zip(order, places, strict=True):
            _paper_point(papers, place, lines.loc[net, f"{measure}_paper"], net, scale)
            _point(axes, place, lines.loc[net].to_dict(), measure, net, scale)
    papers.set_xticks(range(len(nets)), [f"{net}\n{weight_layers(net)}" for net in nets])
    papers.set(xlabel="net, weight layers", xlim=(-0.4, len(nets) - 0.6))
    legend(figure, _ours_and_paper(scales, _several(frame, measure)), 3, length=3)
    return figure


@styled
def against_training_scale(frame: pd.DataFrame, measure: str) -> Figure:
    """Error by S, a line for each net with two or more S: the frame of Table 3."""
    figure, axes, papers = _panels(frame, measure)
    scales = list(dict.fromkeys(frame["S"]))
    nets = [net for net in COLOURS if frame["S"][frame["net"] == net].nunique() > 1]
    for net in nets:
        lines = frame[frame["net"] == net]
        places = np.array([scales.index(scale) for scale in lines["S"]]) + _shift(net, nets)
        papers.plot(places, lines[f"{measure}_paper"], "--", color=colour(net), linewidth=0.8)
        ran = np.isfinite(lines[measure].to_numpy(float))
        axes.plot(places[ran], lines[measure][ran], "-", color=colour(net))
        for place, row in zip(places, lines.to_dict("records"), strict=True):
            _paper_point(papers, place, row[f"{measure}_paper"], net, row["S"])
            _point(axes, place, row, measure, net, row["S"])
    papers.set_xticks(range(len(scales)), scales)
    papers.set(xlabel="training scale S", xlim=(-0.3, len(scales) - 0.7))
    handles = [handle(net, shade=colour(net), line="-") for net in nets]
    legend(figure, [*handles, *_ours_and_paper([], _several(frame, measure))], 3, length=3)
    return figure


@styled
def against_test_scale(frame: pd.DataFrame, measure: str) -> Figure:
    """Error by Q, a marker for each measured Q of a run. Columns net, S, Q and the measure's.

    The paper prints no such numbers. Thin lines join the markers of a run; between them nothing was measured.
    """
    figure, axes = blank()
    handles = []
    for net, scale in dict.fromkeys(zip(frame["net"], frame["S"], strict=True)):
        lines = frame[(frame["net"] == net) & (frame["S"] == scale)].sort_values("Q")
        dash = DASHES.get(scale, "-")
        axes.plot(lines["Q"], lines[measure], linestyle=dash, color=colour(net), linewidth=0.8, alpha=0.6)
        for row in lines.to_dict("records"):
            _point(axes, row["Q"], row, measure, net, scale)
        handles.append(handle(f"{net}, S = {scale}", marker(scale), colour(net), line=dash))
    ticks = sorted(set(frame["Q"]))
    # Scales are often 32 apart. If there are many, only some get a tick.
    axes.set_xticks(ticks if len(ticks) <= 7 else ticks[:: -(-len(ticks) // 7)])
    axes.set(xlabel="test scale Q (only the points are measured)", ylabel=MEASURES[measure])
    handles += [_one_seed()] if _several(frame, measure) else []
    legend(figure, handles, 2, length=3)
    return figure


STRENGTHS = dict(zip(paper.METHODS, (0.4, 0.7, 1.0), strict=True))  # how strong a bar's colour is


@styled
def methods(frame: pd.DataFrame, measure: str) -> Figure:
    """Bars of dense, multi-crop and both, from zero on. Columns nets ("D", "D + E"), method and the measure's."""
    figure, axes = blank()
    groups = list(dict.fromkeys(frame["nets"]))
    step = len(STRENGTHS) + 0.7
    for group, nets in enumerate(groups):
        lines = frame[frame["nets"] == nets].set_index("method")
        for place, (method, strength) in enumerate(STRENGTHS.items()):
            if method in lines.index:
                _bar(axes, group * step + place, lines.loc[method].to_dict(), measure, colour(nets), strength)
    axes.set_xticks([group * step + 1 for group in range(len(groups))], groups)
    axes.set_xlim(-0.8, max(len(groups), 2) * step - 0.9)
    axes.tick_params(axis="x", length=0)
    axes.grid(visible=False, axis="x")
    axes.set_ylabel(MEASURES[measure])
    axes.margins(y=0.12)
    shades = list(dict.fromkeys(map(colour, groups)))
    squares = [
        tuple(Line2D([], [], color=shade, marker="s", linestyle="none", markersize=7, alpha=a) for shade in shades)
        for a in STRENGTHS.values()
    ]
    dash = Line2D([], [], color=INK, marker="_", markersize=11, linestyle="none")
    seeds = [_one_seed(INK)] if _several(frame, measure) else []
    legend(figure, [*squares, dash, *seeds], 2, [*STRENGTHS, "the paper", *["one seed"] * len(seeds)])
    return figure


def _bar(axes: Axes, x: float, row: Mapping[Any, Any], measure: str, shade: str, strength: float) -> None:
    """Draws our error as a bar with its interval or its seeds and its number, the paper's as a dash."""
    value = float(row[measure])
    if np.isfinite(value):
        low, high = (float(row.get(f"{measure}{end}", np.nan)) for end in ("_low", "_high"))
        axes.bar(x, value, 0.86, color=GROUND)  # hides the grid lines behind the bar
        axes.bar(x, value, 0.86, color=shade, alpha=strength, edgecolor=shade)
        top = value
        if np.isfinite([low, high]).all():
            axes.errorbar(x, value, [[value - low], [high - value]], fmt="none", ecolor=INK, elinewidth=1, capsize=2)
            top = high
        each = _each(row, measure)
        axes.plot([x] * len(each), each, ".", color=INK, **SEED)
        axes.annotate(
            f"{value:.1f}", (x, max([top, *each])), (0, 2), textcoords="offset points", ha="center", fontsize=8.5
        )
    for shade, size, width in ((GROUND, 15, 3.6), (INK, 13, 1.4)):  # can be seen on dark bars too
        axes.plot(x, row[f"{measure}_paper"], "_", color=shade, markersize=size, markeredgewidth=width)


@styled
def agreement(frame: pd.DataFrame) -> Figure:
    """Our error against the paper's, a point for each row of Tables 3-6.

    Columns net ("": fused), S, ours, paper; with several seeds also ours_each.
    """
    figure, axes = blank()
    for row in frame.to_dict("records"):
        shape = "*" if row["net"] == "" else marker(row["S"])
        size = 9 if shape == "*" else 5.5
        each = _each(row, "ours")
        axes.plot([row["paper"]] * len(each), each, ".", color=colour(row["net"]), **SEED)
        axes.plot(row["paper"], row["ours"], shape, color=colour(row["net"]), markersize=size, alpha=0.85)
    axes.margins(0.08)
    x, y = axes.get_xlim(), axes.get_ylim()
    if max(x[0], y[0]) < min(x[1], y[1]):  # where the axes hold equal numbers
        axes.axline((0, 0), slope=1, color=MUTED, linewidth=0.8, linestyle="--")
    axes.set(xlim=x, ylim=y, xlabel="the paper's top-1 error (%)", ylabel="our top-1 error (%)")
    nets = [net for net in COLOURS if net in set(frame["net"])]
    handles = [handle(net or "fused", "o" if net else "*", colour(net)) for net in nets]
    handles += [handle(f"S = {scale}", shape) for scale, shape in MARKERS.items() if scale in set(frame["S"])]
    handles += [_one_seed()] if _several(frame, "ours") else []
    legend(figure, handles, 4)
    return figure


SHAPES = {"top-1": "o", "top-5": "s"}  # the marker of a measure
VERDICTS = {"holds": COLOURS["B"][0], "contradicted": COLOURS["D"][0]}  # any other: muted

LABEL = 70  # characters of the usual size that fit the width of `forest`


@styled
def forest(frame: pd.DataFrame) -> Figure:
    """Differences with intervals, a line for each comparison.

    Columns label, measure, difference, low, high (points), difference_paper, verdict; claimed_low, claimed_high
    (points, maybe infinite): the range in which the claim expects the difference; each: the difference of each seed,
    empty with one.
    """
    figure, axes = blank(1.0 + 0.4 * len(frame), WIDE)
    for place, row in enumerate(frame.to_dict("records")):
        axes.plot([0, 0], [place - 0.2, place + 0.2], color=MUTED, linewidth=1)  # not through the labels
        shade, value = VERDICTS.get(row["verdict"], MUTED), row["difference"]
        whisker = [[value - row["low"]], [row["high"] - value]]
        shape = SHAPES[row["measure"]]
        axes.plot(row["each"], [place + 0.2] * len(row["each"]), ".", color=shade, **SEED)  # below the whisker
        axes.errorbar(value, place, xerr=whisker, fmt=shape, color=shade, elinewidth=1.4, capsize=2.5, zorder=3)
        axes.plot(row["difference_paper"], place, "D", color=INK, markerfacecolor=GROUND, markersize=5, zorder=4)
        axes.text(
            0,
            place - 0.42,
            row["label"],
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=8.5 * min(1.0, LABEL / len(row["label"])),
            bbox={"facecolor": GROUND, "edgecolor": "none", "pad": 0.6},
            in_layout=False,  # else a long label makes the axes narrow
        )
    left, right = axes.get_xlim()
    for place, (low, high) in enumerate(zip(frame["claimed_low"], frame["claimed_high"], strict=True)):
        start, end = np.clip([low, high], left, right)
        axes.barh(place, end - start, 0.4, start, color=LINE, zorder=1.5)
    axes.set_xlim(left, right)
    axes.set_yticks([])
    axes.spines["left"].set_visible(False)
    axes.set_ylim(len(frame) - 0.5, -0.8)
    axes.set_xlabel("difference (points)")
    handles = [handle(word, shade=shade, line="-") for word, shade in [*VERDICTS.items(), ("not decided", MUTED)]]
    handles += [handle(measure, SHAPES[measure]) for measure in SHAPES if measure in set(frame["measure"])]
    handles += [
        handle("the paper", "D", INK, hollow=True),
        Line2D([], [], color=LINE, linewidth=7, solid_capstyle="butt", label="as claimed"),
    ]
    handles += [_one_seed()] if frame["each"].map(len).any() else []
    legend(figure, handles, 3)
    return figure


RIGHT, WRONG = COLOURS["B"][0], COLOURS["D"][0]  # of answers
PALE = "#fefefe"  # nearly GROUND, but the page does not replace it on a dark background


def number_colour(cell: np.ndarray) -> str:
    """PALE or INK, whichever has more contrast on this cell: (4,) red, green, blue and opacity in [0, 1], on white."""
    on_white = 1 - cell[3] * (1 - cell[:3])
    luminance = on_white**2.2 @ np.array([0.2126, 0.7152, 0.0722])
    return PALE if luminance < 0.21 else INK


@styled
def confusion(shares: np.ndarray, rows: list[str], columns: list[str]) -> Figure:
    """How often each class gets which answer, a line for each class.

    Args:
        shares: (rows, columns) of a class's images, in per cent; the answer of column i is right for row i.
        rows: the classes' names.
        columns: the answers' names.
    """
    side = max(3.2, 0.21 * len(columns) + 1.2)
    figure, axes = blank(max(2.4, 0.21 * len(rows) + 1.4), side)
    picture = np.zeros((*shares.shape, 4))
    picture[..., :3] = matplotlib.colors.to_rgb(WRONG)
    right = np.arange(len(shares))
    picture[right, right, :3] = matplotlib.colors.to_rgb(RIGHT)
    picture[..., 3] = np.sqrt(shares / 100)  # so that a few per cent can be seen
    axes.imshow(picture, interpolation="none", aspect="auto")
    least = 1 if len(columns) < 25 else 5
    for row, column in zip(*np.nonzero(shares >= least), strict=True):
        shade = number_colour(picture[row, column])
        axes.annotate(f"{shares[row, column]:.0f}", (column, row), ha="center", va="center", fontsize=6, color=shade)
    axes.set_xticks(range(len(columns)), columns, rotation=90, fontsize=7.5)
    axes.set_yticks(range(len(rows)), rows, fontsize=7.5)
    axes.set(xlabel="answer", ylabel="true class")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return figure


@styled
def reliability(frame: pd.DataFrame) -> Figure:
    """Right answers against confidence, and below it how many images have which confidence.

    Columns from, to, confidence, right, right_low, right_high (%), images: `Answers.calibration`.
    """
    figure = Figure(figsize=(WIDTH, 3.9), layout="constrained")
    above, below = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    above.plot([0, 100], [0, 100], "--", color=MUTED, linewidth=0.9)
    ends = [frame["right"] - frame["right_low"], frame["right_high"] - frame["right"]]
    shade = COLOURS["A"][0]
    above.errorbar(frame["confidence"], frame["right"], yerr=ends, fmt="o", color=shade, elinewidth=1.1, capsize=2)
    above.set(ylabel="right answers (%)", xlim=(0, 100), ylim=(-2, 102))
    share = 100 * frame["images"] / frame["images"].sum()
    below.bar(frame["from"], share, frame["to"] - frame["from"], align="edge", color=shade, edgecolor=GROUND)
    below.set(xlabel="confidence (%)", ylabel="images (%)")
    handles = [handle("answers, 95 %", shade=shade, line="-")]
    handles.append(Line2D([], [], color=MUTED, linestyle="--", linewidth=0.9, label="as right as confident"))
    legend(figure, handles, 2)
    return figure
