"""The style of all figures of the report: colours, markers, letters and legends. Writes figures as SVG and PNG.

A net has the same colour and a training scale S the same marker in all figures. Readers who cannot see red, green or
blue can tell the colours apart, and each colour has a contrast of 3 or more on white. Each has a partner that the page
uses on a dark background. The same figure gives the same bytes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D

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
WIDTH, HEIGHT = 4.0, 3.1  # inches: a card's width on the page, so that letters keep their size
TITLE = 0.5  # inches above a figure for its title
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


def blank(height: float = HEIGHT, width: float = WIDTH) -> tuple[Figure, Axes]:
    """An empty figure of this size in inches, and its axes."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.add_subplot()


def handle(label: str, shape: str = "o", shade: str = MUTED, hollow: bool = False, line: Any = "none") -> Line2D:
    """An entry of a legend."""
    face = GROUND if hollow else shade
    return Line2D([], [], color=shade, marker=shape, linestyle=line, markerfacecolor=face, label=label)


def legend(
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
