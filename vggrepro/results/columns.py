"""The columns of a table of results: names, kinds, numbers, and the text of each cell.

Rounding happens here and nowhere else: one decimal as in the paper, an en dash for what was not run.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import pandas as pd

from vggrepro.paper import TOP_K

DASH = "–"
NAN = float("nan")

ERRORS = {  # an image counts as wrong if its true class has this rank or a later one; rank 0 is the best
    "top1_val_error": 1,
    "top5_val_error": TOP_K,
}
TOP1, TOP5 = ERRORS


class Measure(NamedTuple):
    """What a page calls a measure: the paper's heading over its columns, and a short name for one line of heading."""

    heading: str
    short: str


MEASURES = {
    TOP1: Measure("top-1 val. error (%)", "top-1"),
    TOP5: Measure("top-5 val. error (%)", "top-5"),
    "top5_test_error": Measure("top-5 test error (%)", "test top-5"),
    "parameters_millions": Measure("parameters (millions)", "params (M)"),
    "voc2007_map": Measure("VOC-2007 (mean AP, %)", "VOC-2007"),
    "voc2012_map": Measure("VOC-2012 (mean AP, %)", "VOC-2012"),
    "caltech101_mean_recall": Measure("Caltech-101 (mean class recall, %)", "Caltech-101"),
    "caltech256_mean_recall": Measure("Caltech-256 (mean class recall, %)", "Caltech-256"),
    "voc2012_action_map": Measure("VOC-2012 action (mean AP, %)", "VOC-2012 action"),
}
# The paper's headings of the label columns: the line above a group of columns, and the column's own line.
LABELS = {
    "net": ("ConvNet config.", ""),
    "S": ("smallest image side", "train (S)"),
    "Q": ("smallest image side", "test (Q)"),
    "method": ("method", ""),
    "group": ("", ""),
    "models": ("combined ConvNet models", ""),
}


class Kind(StrEnum):
    """What the cells of a column are."""

    LABEL = "label"
    GROUP = "group"  # a label that several rows share
    OURS = "ours"
    PAPER = "paper"
    INTERVAL = "interval"
    DIFFERENCE = "difference"
    NUMBER = "number"  # any other number
    NOTE = "note"  # letters of footnotes


@dataclass(frozen=True, slots=True)
class Column:
    """A column: the paper's two lines of heading, one line that says both, and a cell for each row.

    `raw` has the values behind the cells under the column's second line; an interval has two, "low" and "high".
    `best` marks the cells that the paper would set in bold.
    """

    kind: Kind
    top: str
    sub: str
    heading: str
    cells: list[str]
    raw: dict[str, list[Any]]
    best: list[bool]

    @property
    def left(self) -> bool:
        """Whether the cells are aligned to the left: text, not numbers."""
        return self.kind in (Kind.LABEL, Kind.GROUP, Kind.NOTE)


def column_of(
    kind: Kind,
    top: str,
    sub: str,
    heading: str,
    values: Iterable[Any],
    cells: Iterable[str],
    best: Iterable[bool] = (),
) -> Column:
    """A column of these values and cells; no cell is bold unless `best` says so."""
    texts = list(cells)
    return Column(kind, top, sub, heading, texts, {sub: list(values)}, list(best) or [False] * len(texts))


def numbers(
    kind: Kind,
    top: str,
    sub: str,
    heading: str,
    values: Iterable[float],
    *,
    best: bool = False,
    decimals: int = 1,
) -> Column:
    """A column of numbers; `best` sets the smallest in bold. Differences show their sign."""
    raw = list(values)
    cells = [number(value, "+" if kind is Kind.DIFFERENCE else "", decimals) for value in raw]
    return column_of(kind, top, sub, heading, raw, cells, smallest(cells) if best else ())


def interval(top: str, heading: str, low: Iterable[float], high: Iterable[float]) -> Column:
    """A column of 95 % intervals."""
    ends = {"low": list(low), "high": list(high)}
    cells = [span(*pair) for pair in zip(*ends.values(), strict=True)]
    return Column(Kind.INTERVAL, top, "95 %", heading, cells, ends, [False] * len(cells))


def labels_of(frame: pd.DataFrame, names: Iterable[str]) -> list[Column]:
    """Columns of labels under their own names."""
    return [column_of(Kind.LABEL, name, "", name, frame[name], map(str, frame[name])) for name in names]


def measures_of(frame: pd.DataFrame, *, best: bool = True) -> list[Column]:
    """Our errors as columns, with their intervals or spreads over seeds; `best` sets the smallest errors in bold."""
    result = []
    for name in (name for name in ERRORS if frame[name].notna().any()):
        top, short = MEASURES[name]
        result.append(ours(frame, name, short, best=best))
        if f"{name}_low" in frame:
            result.append(interval(top, f"{short} 95 %", frame[f"{name}_low"], frame[f"{name}_high"]))
    return [*result, *seeds_of(frame)]


def ours(frame: pd.DataFrame, name: str, heading: str, *, best: bool) -> Column:
    """Our numbers of a measure; with several seeds means with their standard deviations."""
    made = numbers(Kind.OURS, MEASURES[name].heading, "ours", heading, frame[name], best=best)
    return with_spread(made, frame[f"{name}_sd"]) if f"{name}_sd" in frame else made


def with_spread(made: Column, spreads: Iterable[float]) -> Column:
    """Means with their standard deviations over seeds; dashes stay."""
    cells = [cell if cell == DASH else f"{cell} ± {number(sd)}" for cell, sd in zip(made.cells, spreads, strict=True)]
    return dataclasses.replace(made, cells=cells)


def seeds_of(frame: pd.DataFrame) -> list[Column]:
    """The column of the number of seeds, where there are several."""
    if "n" not in frame:
        return []
    return [column_of(Kind.NUMBER, "", "n", "n", frame["n"], [str(count or DASH) for count in frame["n"]])]


def groups_of(frame: pd.DataFrame) -> list[str]:
    """The group of each row, as the paper's horizontal lines divide Tables 2-7: the submission, the net or the team."""
    for name in ("group", "net"):
        if name in frame:
            return list(frame[name])
    return [method.partition(" (")[0] for method in frame["method"]]


def number(value: float, sign: str = "", decimals: int = 1) -> str:
    """One decimal as the paper prints it, a dash for NaN. `sign="+"` shows the sign, except of 0.0."""
    if math.isnan(value):
        return DASH
    text = f"{value:{sign}.{decimals}f}"
    return "0.0" if sign and float(text) == 0 else text


def span(low: float, high: float) -> str:
    """An interval as the paper writes ranges: `[13.1; 19.2]`."""
    return DASH if math.isnan(low) else f"[{round(low, 1) + 0.0:.1f}; {round(high, 1) + 0.0:.1f}]"  # no -0.0


def p_text(p: float) -> str:
    """A p-value with three decimals, `< 0.001` if it is smaller, a dash for NaN."""
    if math.isnan(p):
        return DASH
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def label(name: str, text: str) -> str:
    """A label as a page shows it: blanks after commas; the nets of Table 6 without their Q, which its caption gives."""
    if name == "models":
        return ", ".join(model.rpartition("/")[0] for model in text.split("; "))
    return text.replace(",", ", ") if name == "Q" else text


def smallest(cells: Sequence[str]) -> list[bool]:
    """Marks the smallest printed numbers, ties included; none if there is only one number."""
    values = [float(cell) for cell in cells if cell != DASH]
    return [len(values) > 1 and cell != DASH and float(cell) == min(values) for cell in cells]


def largest(values: Sequence[float]) -> list[bool]:
    """Marks the largest numbers as printed with one decimal, ties included; none if there is only one number."""
    printed = [float(number(value)) if not math.isnan(value) else -math.inf for value in values]
    several = sum(not math.isnan(value) for value in values) > 1
    return [several and value == max(printed) and not math.isinf(value) for value in printed]
