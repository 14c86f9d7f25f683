"""Figures of the report: a frame in, a matplotlib figure out; no files, no state.

A net has the same colour and a training scale S the same marker in all figures. Ours is filled, the paper's hollow on a
dashed line. Readers who cannot see red, green or blue can tell the colours apart, and each colour has a contrast of 3
or more on white. Each has a partner that the page uses on a dark background. The same frame gives the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, ParamSpec

import matplotlib
import matplotlib.colors
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from vggrepro import paper
from vggrepro.results import columns

P = ParamSpec("P")

INK, MUTED, LINE, GROUND = "#1c1f24", "#5b616b", "#d5d9e0", "#ffffff"
# Net: colour on light and on dark ground. "" is several nets fused.
COLOURS = {
    "A": ("#1545b9", "#58a4ee"),
    "A-LRN": ("#3291f7", "#a2d4ff"),
    "B": ("#18804b", "#32d6a2"),
    "B-5x5": ("#8f8f8f", "#8b8b8b"),
    "C": ("#b88605", "#f1c944"),
    "D": ("#a42e00", "#ff7a4d"),
    "E": ("#ab4197", "#e48ec8"),
    "": ("#434954", "#c3c9d4"),
}
MARKERS = {"256": "o", "384": "s", "[256;512]": "D"}
DASHES: dict[str, Any] = {"256": "-", "384": (0, (4, 1.5)), "[256;512]": (0, (1, 1))}
PAPER_DASHES: dict[str, Any] = {"256": (0, (4, 2)), "384": (0, (3, 1.5, 1, 1.5)), "[256;512]": (0, (1, 1.5))}
MEASURES = {name: f"{columns.MEASURES[name].short} error (%)" for name in columns.ERRORS}
WIDTH, HEIGHT = 4.0, 3.1  # inches: a card's width on the page, so that letters keep their size
TITLE = 0.5  # inches above a figure for its title
WIDE = 4.4  # inches: the figure of the claims has a wider card and longer labels
STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.color": MUTED,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.4,
    "lines.markersize": 5.5,
    "figure.facecolor": "none",
    "text.parse_math": False,  # a run's name may hold dollars
    "svg.fonttype": "none",  # text stays text: it can be searched and read aloud, and takes the page's font and colour
    "svg.hashsalt": "vggrepro",
    "path.simplify": True,
}


def styled(function: Callable[P, Figure]) -> Callable[P, Figure]:
    """Draws in our style, whatever the user's matplotlibrc says."""

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Figure:
        with matplotlib.rc_context(), matplotlib.rc_context(STYLE):
            return function(*args, **kwargs)

    return wrapper


def svg(figure: Figure, background: str = "none") -> str:
    """The figure as an SVG document; the same figure gives the same text."""
    buffer = io.StringIO()
    with matplotlib.rc_context(STYLE):
        # Keeps the date and the version of matplotlib out of the file.
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(buffer, format="svg", facecolor=background, metadata=nothing)
    return "\n".join(line.rstrip() for line in buffer.getvalue().splitlines()) + "\n"


def png(figure: Figure, dpi: int = 200) -> bytes:
    """The figure as a PNG on white."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(buffer, format="png", facecolor=GROUND, dpi=dpi, metadata={"Software": None})
    return buffer.getvalue()


def titled(figure: Figure, title: str, data: str) -> Figure:
    """The figure with its title and its data above it, as a file of its own needs them."""
    width, height = figure.get_size_inches()
    whole = height + TITLE
    figure.set_size_inches(width, whole)
    if figure.get_layout_engine() is None:  # its axes have fixed places
        for axes in figure.axes:
            left, bottom, across, up = axes.get_position().bounds
            axes.set_position((left, bottom * height / whole, across, up * height / whole))
    with matplotlib.rc_context(STYLE):
        figure.suptitle(f"{title}\n{data}", fontsize=9, x=0.02, ha="left")
    return figure


def colour(net: str) -> str:
    """A net's colour on a light background; any other name gets the colour of several nets."""
    return COLOURS.get(net, COLOURS[""])[0]


def marker(scale: str) -> str:
    """A training scale's marker."""
    return MARKERS.get(scale, "o")


def weight_layers(net: str) -> int:
    """Convolutional and FC layers (Table 1)."""
    return sum(isinstance(layer, paper.Conv) for block in paper.blocks(net) for layer in block) + 3


def _figure(height: float = HEIGHT, width: float = WIDTH) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def _panels(frame: pd.DataFrame, measure: str) -> tuple[Figure, Axes, Axes]:
    """A figure, and the axes of our errors and of the paper's.

    They are the same axes, unless the numbers lie so far apart that neither side's differences could be seen: then
    ours stand above the paper's.
    """
    ours, theirs = frame[measure].dropna(), frame[f"{measure}_paper"].dropna()
    spread = max((side.max() - side.min() for side in (ours, theirs) if len(side)), default=0)
    if ours.empty or theirs.empty or max(ours.min() - theirs.max(), theirs.min() - ours.max()) <= spread / 2:
        figure, axes = _figure()
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
    each = [float(text) for text in str(row.get(f"{measure}_each", "")).split()]
    axes.plot([x] * len(each), each, ".", color=colour(net), markersize=3, alpha=0.7, zorder=3)
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


def _shift(name: str, names: list[str]) -> float:
    """The sideways shift of one of several lines, so that their intervals do not hide each other."""
    return 0.09 * (names.index(name) - (len(names) - 1) / 2)


def _paper_point(axes: Axes, x: float, y: float, net: str, scale: str) -> None:
    axes.plot(x, y, marker(scale), color=colour(net), markerfacecolor=GROUND, markersize=4.5, zorder=3)


def _handle(label: str, shape: str = "o", shade: str = MUTED, hollow: bool = False, line: Any = "none") -> Line2D:
    face = GROUND if hollow else shade
    return Line2D([], [], color=shade, marker=shape, linestyle=line, markerfacecolor=face, label=label)


def _ours_and_paper(scales: list[str]) -> list[Line2D]:
    """Legend entries: what filled and hollow mean, and the marker and the paper's line of each of these scales."""
    handles = [_handle("ours, 95 %", line="-"), _handle("the paper", hollow=True, line="--")]
    return handles + [_handle(f"S = {s}", marker(s), hollow=True, line=PAPER_DASHES.get(s, "--")) for s in scales]


def _legend(
    figure: Figure, handles: Sequence[Any], columns: int = 4, labels: Sequence[str] = (), length: float = 2.2
) -> None:
    """A legend below the axes; a tuple of handles stands side by side for one label.

    `length` is that of a handle, in letters; broken lines need 3 to be recognised.
    """
    figure.legend(
        handles=handles,
        labels=labels or [handle.get_label() for handle in handles],
        handler_map={tuple: HandlerTuple(ndivide=None)},
        loc="outside lower center",
        ncols=columns,
        handlelength=length,
        handletextpad=0.5,
        columnspacing=0.8,
    )


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
    _legend(figure, _ours_and_paper(scales), 3, length=3)
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
    handles = [_handle(net, shade=colour(net), line="-") for net in nets]
    _legend(figure, [*handles, *_ours_and_paper([])], 3, length=3)
    return figure


@styled
def against_test_scale(frame: pd.DataFrame, measure: str) -> Figure:
    """Error by Q, a marker for each measured Q of a run. Columns net, S, Q and the measure's.

    The paper prints no such numbers. Thin lines join the markers of a run; between them nothing was measured.
    """
    figure, axes = _figure()
    handles = []
    for net, scale in dict.fromkeys(zip(frame["net"], frame["S"], strict=True)):
        lines = frame[(frame["net"] == net) & (frame["S"] == scale)].sort_values("Q")
        axes.plot(lines["Q"], lines[measure], linestyle=DASHES.get(scale, "-"), color=colour(net), **JOINING)
        for row in lines.to_dict("records"):
            _point(axes, row["Q"], row, measure, net, scale)
        handles.append(_handle(f"{net}, S = {scale}", marker(scale), colour(net)))
    ticks = sorted(set(frame["Q"]))
    # Scales are often 32 apart: of many, only as many get a tick as there is room for.
    axes.set_xticks(ticks if len(ticks) <= 7 else ticks[:: -(-len(ticks) // 7)])
    axes.set(xlabel="test scale Q", ylabel=MEASURES[measure])
    handles.append(Line2D([], [], color=MUTED, label="not measured", **JOINING))
    _legend(figure, handles, 2)
    return figure


JOINING: dict[str, Any] = {"linewidth": 0.8, "alpha": 0.6}  # the look of a line between measured points
STRENGTHS = dict(zip(paper.METHODS, (0.4, 0.7, 1.0), strict=True))  # how strong a bar's colour is


@styled
def methods(frame: pd.DataFrame, measure: str) -> Figure:
    """Bars of dense, multi-crop and both, from zero on. Columns nets ("D", "D + E"), method and the measure's."""
    figure, axes = _figure()
    groups = list(dict.fromkeys(frame["nets"]))
    step = len(STRENGTHS) + 0.7
    for group, nets in enumerate(groups):
        lines = frame[frame["nets"] == nets].set_index("method")
        for place, (method, strength) in enumerate(STRENGTHS.items()):
            if method in lines.index:
                _bar(axes, group * step + place, lines.loc[method], measure, colour(nets), strength)
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
    _legend(figure, [*squares, dash], 2, [*STRENGTHS, "the paper"])
    return figure


def _bar(axes: Axes, x: float, row: pd.Series, measure: str, shade: str, strength: float) -> None:
    """Draws our error as a bar with its interval and its number, the paper's as a dash."""
    value = float(row[measure])
    if np.isfinite(value):
        low, high = (float(row.get(f"{measure}{end}", np.nan)) for end in ("_low", "_high"))
        axes.bar(x, value, 0.86, color=GROUND)  # no grid shines through the bar
        axes.bar(x, value, 0.86, color=shade, alpha=strength, edgecolor=shade)
        top = value
        if np.isfinite([low, high]).all():
            axes.errorbar(x, value, [[value - low], [high - value]], fmt="none", ecolor=INK, elinewidth=1, capsize=2)
            top = high
        axes.annotate(f"{value:.1f}", (x, top), (0, 2), textcoords="offset points", ha="center", fontsize=8.5)
    for shade, size, width in ((GROUND, 15, 3.6), (INK, 13, 1.4)):  # seen on dark bars, too
        axes.plot(x, row[f"{measure}_paper"], "_", color=shade, markersize=size, markeredgewidth=width)


@styled
def agreement(frame: pd.DataFrame) -> Figure:
    """Our error against the paper's, a point for each row of Tables 3-6. Columns net ("": fused), S, ours, paper."""
    figure, axes = _figure()
    for row in frame.to_dict("records"):
        shape = "*" if row["net"] == "" else marker(row["S"])
        size = 9 if shape == "*" else 5.5
        axes.plot(row["paper"], row["ours"], shape, color=colour(row["net"]), markersize=size, alpha=0.85)
    axes.margins(0.08)
    x, y = axes.get_xlim(), axes.get_ylim()
    if max(x[0], y[0]) < min(x[1], y[1]):  # where the axes hold equal numbers
        axes.axline((0, 0), slope=1, color=MUTED, linewidth=0.8, linestyle="--")
    axes.set(xlim=x, ylim=y, xlabel="the paper's top-1 error (%)", ylabel="our top-1 error (%)")
    nets = [net for net in COLOURS if net in set(frame["net"])]
    handles = [_handle(net or "fused", "o" if net else "*", colour(net)) for net in nets]
    handles += [_handle(f"S = {scale}", shape) for scale, shape in MARKERS.items() if scale in set(frame["S"])]
    _legend(figure, handles, 4)
    return figure


SHAPES = {"top-1": "o", "top-5": "s"}  # the marker of a measure
VERDICTS = {"holds": COLOURS["B"][0], "contradicted": COLOURS["D"][0]}  # any other: muted


@styled
def forest(frame: pd.DataFrame) -> Figure:
    """Differences with intervals, a line for each comparison.

    Columns label, measure, difference, low, high (points), difference_paper, verdict; claimed_low, claimed_high
    (points, maybe infinite): the range in which the claim expects the difference.
    """
    figure, axes = _figure(1.0 + 0.4 * len(frame), WIDE)
    for place, row in enumerate(frame.to_dict("records")):
        axes.plot([0, 0], [place - 0.2, place + 0.2], color=MUTED, linewidth=1)  # not through the labels
        shade, value = VERDICTS.get(row["verdict"], MUTED), row["difference"]
        whisker = [[value - row["low"]], [row["high"] - value]]
        shape = SHAPES[row["measure"]]
        axes.errorbar(value, place, xerr=whisker, fmt=shape, color=shade, elinewidth=1.4, capsize=2.5, zorder=3)
        axes.plot(row["difference_paper"], place, "D", color=INK, markerfacecolor=GROUND, markersize=5, zorder=4)
        axes.text(
            0,
            place - 0.42,
            row["label"],
            transform=axes.get_yaxis_transform(),
            va="center",
            fontsize=8.5,
            bbox={"facecolor": GROUND, "edgecolor": "none", "pad": 0.6},
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
    handles = [_handle(word, shade=shade, line="-") for word, shade in [*VERDICTS.items(), ("not decided", MUTED)]]
    handles += [_handle(measure, SHAPES[measure]) for measure in SHAPES if measure in set(frame["measure"])]
    handles += [
        _handle("the paper", "D", INK, hollow=True),
        Line2D([], [], color=LINE, linewidth=7, solid_capstyle="butt", label="as claimed"),
    ]
    _legend(figure, handles, 3)
    return figure


RIGHT, WRONG = COLOURS["B"][0], COLOURS["D"][0]  # of answers


@styled
def confusion(shares: np.ndarray, rows: list[str], columns: list[str]) -> Figure:
    """How often each class gets which answer, a line for each class.

    Args:
        shares: (rows, columns) of a class's images, in per cent; the answer of column i is right for row i.
        rows: the classes' names.
        columns: the answers' names.
    """
    side = max(3.2, 0.21 * len(columns) + 1.2)
    figure, axes = _figure(max(2.4, 0.21 * len(rows) + 1.4), side)
    picture = np.zeros((*shares.shape, 4))
    picture[..., :3] = matplotlib.colors.to_rgb(WRONG)
    right = np.arange(len(shares))
    picture[right, right, :3] = matplotlib.colors.to_rgb(RIGHT)
    picture[..., 3] = np.sqrt(shares / 100)  # so that a few per cent can be seen
    axes.imshow(picture, interpolation="none", aspect="auto")
    least = 1 if len(columns) < 25 else 5
    for row, column in zip(*np.nonzero(shares >= least), strict=True):
        axes.annotate(f"{shares[row, column]:.0f}", (column, row), ha="center", va="center", fontsize=6)
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
    handles = [_handle("answers, 95 %", shade=shade, line="-")]
    handles.append(Line2D([], [], color=MUTED, linestyle="--", linewidth=0.9, label="as right as confident"))
    _legend(figure, handles, 2)
    return figure


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
    """The receptive field of each conv. layer in its order, a line a net, and the crop; all in pixels."""
    figure, axes = _figure()
    for net, sides in fields.items():
        axes.plot(range(1, len(sides) + 1), sides, "o-", color=colour(net))
    axes.axhline(crop, color=MUTED, linestyle=(0, (4, 2)))
    axes.annotate("crop", (1, crop), (0, 3), textcoords="offset points", color=MUTED)
    axes.set(xlabel="conv. layer", ylabel="receptive field (pixels)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(figure, [_handle(net, "o", colour(net), line="-") for net in fields], 5)
    return figure


@styled
def all_runs(curves: Mapping[str, pd.DataFrame], nets: Mapping[str, tuple[str, str]]) -> Figure:
    """The top-1 error after each epoch, a line for each run; `nets` gives each run's (net, S).

    Epochs are counted as the curves count them: a run of another scale may go on after the one that it starts from.
    """
    figure, axes = _figure(3.9)
    handles = []
    for run, frame in curves.items():
        net, scale = nets[run]
        dash = DASHES.get(scale, "-")
        axes.plot(frame["epoch"], frame["top1_error"], linestyle=dash, color=colour(net))
        axes.plot(frame["epoch"].iloc[-1:], frame["top1_error"].iloc[-1:], marker(scale), color=colour(net))
        handles.append(_handle(run, marker(scale), colour(net), line=dash))
    axes.set(xlabel="epoch", ylabel="top-1 error (%)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(figure, handles, 3)
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
