"""How a table is laid out on a page: the paper's grouped headings, our numbers beside its own, cells as text.

Rounding happens here and nowhere else: the paper's one decimal, an en dash for what was not run. Markdown, LaTeX and
HTML differ only in how they set the same columns.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pandas as pd

from vggrepro.tables import Table

DASH = "–"
PRINTED_ALONE = ("top5_test_error",)  # measures without numbers of ours

# The paper's headings: over a group of columns, and of the column.
LABELS = {
    "net": ("ConvNet config.", ""),
    "S": ("smallest image side", "train (S)"),
    "Q": ("smallest image side", "test (Q)"),
    "method": ("method", ""),
    "group": ("", ""),
    "models": ("combined ConvNet models", ""),
}
MEASURES = {
    "top1_val_error": ("top-1 val. error (%)", "top-1"),  # and what a single heading line calls it
    "top5_val_error": ("top-5 val. error (%)", "top-5"),
    "top5_test_error": ("top-5 test error (%)", "test top-5"),
    "parameters_millions": ("parameters (millions)", "params (M)"),
}
COUNTS = {"parameters": "exactly", "parameters_here": "here"}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a page: the paper's two lines of heading, one line that says both, and a cell a row.

    `raw` holds the numbers (or labels) behind the cells by name: one list, or an interval's "low" and "high".
    `best` marks cells that the paper would set in bold. `left`: aligned to the left.
    """

    top: str
    sub: str
    heading: str
    cells: list[str]
    raw: dict[str, list[Any]]
    best: list[bool]
    left: bool = False


def columns(table: Table) -> list[Column]:
    """The table's columns in the paper's order; of each measure ours, its 95 % interval, the paper's, the difference.

    An interval's column is there where a number of ours is, the column of footnote letters where a row has one.
    """
    frame = table.frame
    result = [_label(name, frame[name], table.number) for name in table.labels]
    if table.number == 1:
        added = added_layers(frame)
        return [Column("ConvNet configuration", c.heading, c.heading, c.cells, c.raw, added[c.heading], True)
                for c in result]  # fmt: skip
    for name in table.measures:
        result += _measure(table, name)
    for name, heading in COUNTS.items():
        if name in frame:
            counts = list(frame[name])
            result.append(column_of("", heading, heading, [f"{count:,}" for count in counts], {heading: counts}))
    if (frame["note"] != "").any():
        notes = list(frame["note"])
        result.append(column_of("", "note", "note", notes, {"note": notes}, left=True))
    return result


def column_of(
    top: str,
    sub: str,
    heading: str,
    cells: list[str],
    raw: dict[str, list[Any]],
    best: Iterable[bool] = (),
    left: bool = False,
) -> Column:
    """A `Column` without bold cells unless `best` says so."""
    return Column(top, sub, heading, cells, raw, list(best) or [False] * len(cells), left)


def interval(top: str, heading: str, low: Iterable[float], high: Iterable[float]) -> Column:
    """The column of 95 % intervals."""
    ends = {"low": list(low), "high": list(high)}
    return column_of(top, "95 %", heading, [span(*pair) for pair in zip(*ends.values(), strict=True)], ends)


def _label(name: str, values: pd.Series, number: int) -> Column:
    top, sub = LABELS.get(name, (name, ""))
    heading = {"models": "nets / S"}.get(name, name)
    return column_of(top, sub, heading, [label(name, text) for text in values], {sub: list(values)}, left=True)


def _measure(table: Table, name: str) -> list[Column]:
    """A measure's columns; bold is the smallest number of ours, and of the paper's."""
    frame, (top, short) = table.frame, MEASURES[name]
    decimals = 0 if name == "parameters_millions" else 1
    theirs = [number(value, decimals=decimals) for value in frame[f"{name}_paper"]]
    best = smallest(theirs) if table.number > 2 else []
    paper = column_of(top, "paper", f"{short} paper", theirs, {"paper": list(frame[f"{name}_paper"])}, best)
    if name in PRINTED_ALONE:
        return [paper]
    ours = [number(value) for value in frame[name]]
    best = smallest(ours) if table.number > 2 else []
    result = [column_of(top, "ours", f"{short} ours", ours, {"ours": list(frame[name])}, best)]
    if f"{name}_low" in frame and frame[f"{name}_low"].notna().any():
        result.append(interval(top, f"{short} 95 %", frame[f"{name}_low"], frame[f"{name}_high"]))
    difference = list(frame[f"{name}_difference"])
    signed = [number(value, "+") for value in difference]
    return [*result, paper, column_of(top, "Δ", f"Δ {short}", signed, {"Δ": difference})]


def paper_layout(table: Table) -> pd.DataFrame:
    """The table as the paper groups it, raw numbers under two lines of heading.

    Columns: a MultiIndex (heading over the group, heading), such as ("smallest image side", "train (S)") and
    ("top-1 val. error (%)", "ours"); intervals are the columns "low" and "high". Rows: a MultiIndex ("group",
    "row"): the net in Tables 3-5, submission or not in Table 6, the team in Table 7, the block of layers in Table 1.
    Table 2 lies on its side, as in the paper: a column a net, those of equal size together.
    """
    made = [column for column in columns(table) if column.heading not in ("note", "group")]
    values = {(c.top, name if c.sub or len(c.raw) > 1 else ""): cells for c in made for name, cells in c.raw.items()}
    if table.number == 1:
        values = {(column.top, column.heading): column.raw[""] for column in made}
    frame = pd.DataFrame(values)
    frame.columns = pd.MultiIndex.from_tuples(list(values))
    if table.number == 2:
        return _sideways(frame)
    rows = zip(groups(table), range(1, len(frame) + 1), strict=True)
    frame.index = pd.MultiIndex.from_tuples(list(rows), names=("group", "row"))
    return frame


def _sideways(frame: pd.DataFrame) -> pd.DataFrame:
    nets, counts = frame.iloc[:, 0], frame.iloc[:, 1:]
    sizes = counts.to_numpy().tolist()
    together = [list(part) for _, part in groupby(range(len(nets)), key=sizes.__getitem__)]
    result = counts.iloc[[rows[0] for rows in together]].T
    result.columns = pd.Index([", ".join(nets.iloc[rows]) for rows in together], name="Network")
    return result


def groups(table: Table) -> list[str]:
    """The group of each row, as the paper's horizontal lines make them."""
    frame = table.frame
    if table.number == 1:
        blocks = (frame.iloc[:, 0] == "maxpool").cumsum().shift(fill_value=0)
        head = ["input"] * 2
        return head + [f"block {block + 1}" if block < 5 else "FC" for block in blocks.iloc[2:]]
    if table.number == 7:
        return [method.partition(" (")[0] for method in frame["method"]]
    return list(frame["group" if "group" in frame else "net"])


def added_layers(nets: pd.DataFrame) -> dict[str, list[bool]]:
    """Table 1: the cells that differ from the net on the left, which the paper sets in bold."""
    result = {str(nets.columns[0]): [False] * len(nets)}
    for left, net in zip(nets.columns[:-1], nets.columns[1:], strict=True):
        layers = nets[net].str.startswith("conv") | (nets[net] == "LRN")
        result[str(net)] = list(layers & (nets[net] != nets[left]))
    return result


def number(value: float, sign: str = "", decimals: int = 1) -> str:
    """One decimal, as the paper prints; an en dash for NaN. `sign="+"` shows the sign, but not of 0.0."""
    if math.isnan(value):
        return DASH
    text = f"{value:{sign}.{decimals}f}"
    return "0.0" if sign and float(text) == 0 else text


def span(low: float, high: float) -> str:
    """An interval in the paper's way of writing ranges: `[13.1; 19.2]`."""
    return DASH if math.isnan(low) else f"[{low:.1f}; {high:.1f}]"


def label(name: str, text: str) -> str:
    """Label cells for the eye: blanks after commas; Table 6's nets without Q, which the caption gives."""
    if name == "models":
        return ", ".join(model.rpartition("/")[0] for model in text.split("; "))
    return text.replace(",", ", ") if name == "Q" else text


def smallest(cells: Sequence[str]) -> list[bool]:
    """The smallest printed numbers, ties too; a lone number is no best."""
    values = [float(cell) for cell in cells if cell != DASH]
    return [len(values) > 1 and cell != DASH and float(cell) == min(values) for cell in cells]
