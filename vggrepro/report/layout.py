"""How a page shows a table of the paper: its headings and groups of rows, and our numbers beside the paper's.

Markdown, LaTeX and HTML set the same columns (`columns`), each in its own way.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import pandas as pd

from vggrepro import paper
from vggrepro.results.columns import (
    LABELS,
    MEASURES,
    Column,
    Kind,
    column_of,
    groups_of,
    interval,
    label,
    largest,
    number,
    numbers,
    ours,
    seeds_of,
    span,
)
from vggrepro.results.tables import Table
from vggrepro.results.verdicts import CONTRADICTED, HOLDS, LARGER, NOT_RUN, UNDECIDED

PRINTED_ALONE = ("top5_test_error",)  # measures that only the paper has
SIGNS = {HOLDS: "✓", CONTRADICTED: "✗", LARGER: ">", UNDECIDED: "?", NOT_RUN: "–"}  # of verdicts
COUNTS = {"parameters": "exactly", "parameters_here": "here"}  # Table 2's counts, and their headings


def columns(table: Table, *, ranks: bool = False) -> list[Column]:
    """The table's columns in the paper's order; of each measure ours, its 95 % interval, the paper's, the difference.

    There is a column of intervals only if a number of ours has one, and a column of notes only if a row has a note.

    Args:
        table: the table.
        ranks: show the rank of each row by our error and by the paper's in place of the difference. This is for data
            whose errors cannot be compared with the paper's.
    """
    frame = table.frame
    if table.layers:
        added = added_layers(frame)
        return [column_of(Kind.LABEL, "ConvNet configuration", net, net, frame[net], frame[net], added[net])
                for net in table.labels]  # fmt: skip
    result = [_label(name, frame[name]) for name in table.labels]
    for name in table.measures:
        result += _precision(table, name) if table.precisions else _measure(table, name, ranks and table.measured)
    for name, heading in COUNTS.items():
        if name in frame:
            cells = [f"{count:,}" for count in frame[name]]
            result.append(column_of(Kind.NUMBER, "", heading, heading, frame[name], cells))
    result += seeds_of(frame)
    if (frame["note"] != "").any():
        result.append(column_of(Kind.NOTE, "", "note", "note", frame["note"], frame["note"]))
    return result


def _label(name: str, values: pd.Series) -> Column:
    top, sub = LABELS.get(name, (name, ""))
    heading = "nets / S" if name == "models" else name
    kind = Kind.GROUP if name == "group" else Kind.LABEL
    return column_of(kind, top, sub, heading, values, [label(name, text) for text in values])


def _measure(table: Table, name: str, ranks: bool) -> list[Column]:
    """A measure's columns; among errors the smallest of ours and the smallest of the paper's are bold."""
    frame, (top, short) = table.frame, MEASURES[name]
    best, decimals = table.measured, 0 if name == "parameters_millions" else 1
    theirs = numbers(Kind.PAPER, top, "paper", f"{short} paper", frame[f"{name}_paper"], best=best, decimals=decimals)
    if name in PRINTED_ALONE:
        return [theirs]
    result = [ours(frame, name, f"{short} ours", best=best)]
    if f"{name}_low" in frame and frame[f"{name}_low"].notna().any():
        result.append(interval(top, f"{short} 95 %", frame[f"{name}_low"], frame[f"{name}_high"]))
    if ranks:
        return [*result, theirs, *_ranks(frame, name)]
    return [*result, theirs, numbers(Kind.DIFFERENCE, top, "Δ", f"Δ {short}", frame[f"{name}_difference"])]


def _ranks(frame: pd.DataFrame, name: str) -> list[Column]:
    """The rank of each row among the rows that have our number and the paper's, 1 is the smallest error.

    Rows of equal numbers, as printed, share a rank. There are no columns if no row has both numbers.
    """
    both = frame[[name, f"{name}_paper"]].dropna().round(1)
    if both.empty:
        return []
    top, short = MEASURES[name]
    places = both.rank(method="min").reindex(frame.index)
    return [
        numbers(Kind.NUMBER, top, sub, f"{short} {sub}", places[of], decimals=0)
        for of, sub in ((name, "rank"), (f"{name}_paper", "paper's rank"))
    ]


def _precision(table: Table, name: str) -> list[Column]:
    """A measure's columns in Tables 11 and 12, with deviations and starred entries; the largest numbers are bold."""
    frame, (top, short) = table.frame, MEASURES[name]
    result = []
    for kind, end, sub in ((Kind.OURS, "", "ours"), (Kind.PAPER, "_paper", "paper")):
        values = frame[f"{name}{end}"]
        texts = [number(value) + (f" ± {number(std)}" if std == std else "")
                 for value, std in zip(values, frame[f"{name}_std{end}"], strict=True)]  # fmt: skip
        if kind is Kind.PAPER:
            stars = frame[f"{name}_starred"]
            texts = [f"{text} ({number(star)}*)" if star == star else text
                     for text, star in zip(texts, stars, strict=True)]  # fmt: skip
        result.append(column_of(kind, top, sub, f"{short} {sub}", values, texts, largest(list(values))))
    return [*result, numbers(Kind.DIFFERENCE, top, "Δ", f"Δ {short}", frame[f"{name}_difference"])]


def paper_layout(table: Table) -> pd.DataFrame:
    """The table as the paper groups it, raw numbers under two lines of heading.

    Columns: a MultiIndex (heading over the group, heading), such as ("smallest image side", "train (S)") and
    ("top-1 val. error (%)", "ours"); intervals are the columns "low" and "high". Rows: a MultiIndex ("group",
    "row"): the net in Tables 3-5, submission or not in Table 6, the team in Table 7, the block of layers in Table 1.
    Table 2 lies on its side, as in the paper: a column for each net, nets of equal size together.
    """
    made = [column for column in columns(table) if column.kind not in (Kind.NOTE, Kind.GROUP)]
    values = {(column.top, name): raw for column in made for name, raw in column.raw.items()}
    frame = pd.DataFrame(values)
    frame.columns = pd.MultiIndex.from_tuples(list(values))
    if table.sideways:
        together = equal_nets(made)
        result = frame.iloc[list(together.values()), 1:].T
        result.columns = pd.Index(list(together), name="Network")
        return result
    rows = zip(groups(table), range(1, len(frame) + 1), strict=True)
    frame.index = pd.MultiIndex.from_tuples(list(rows), names=("group", "row"))
    return frame


def equal_nets(made: Sequence[Column]) -> dict[str, int]:
    """The columns of Table 2 on its side: names of equally large neighbours, "A, A-LRN", and the row of the first."""
    names, counts = made[0].cells, made[1:]
    sizes = list(zip(*(column.cells for column in counts), strict=True))
    together = [list(rows) for _, rows in groupby(range(len(names)), key=sizes.__getitem__)]
    return {", ".join(names[row] for row in rows): rows[0] for rows in together}


def groups(table: Table) -> list[str]:
    """The group of each row, as the paper's horizontal lines make them."""
    if not table.layers:
        return groups_of(table.frame)
    blocks = (table.frame.iloc[:, 0] == "maxpool").cumsum().shift(fill_value=0)
    return ["input"] * 2 + [f"block {block + 1}" if block < 5 else "FC" for block in blocks.iloc[2:]]


def added_layers(nets: pd.DataFrame) -> dict[str, list[bool]]:
    """Table 1: the cells that differ from the net on the left, which the paper sets in bold."""
    result = {str(nets.columns[0]): [False] * len(nets)}
    for left, net in zip(nets.columns[:-1], nets.columns[1:], strict=True):
        layers = nets[net].str.startswith("conv") | (nets[net] == "LRN")
        result[str(net)] = list(layers & (nets[net] != nets[left]))
    return result


def uncertainty(row: dict[Any, Any], measure: str) -> str:
    """How uncertain our number of a row is: its interval or, with several seeds, its deviation over them."""
    if f"{measure}_sd" not in row:
        return f"95 % interval {span(row[f'{measure}_low'], row[f'{measure}_high'])}"
    if row["n"] == 1:
        return "one seed"
    return f"standard deviation {number(row[f'{measure}_sd'])} over {row['n']} seeds"


def row_name(row: dict[Any, Any], table: Table) -> str:
    """A row of Tables 3-6 in words."""
    if "models" in row:
        count = str(row["models"]).count("; ") + 1
        return f"{count} nets, {row['method']} (Table 6)"
    scale = row.get("S", paper.JITTER.label)
    return f"{row['net']}, S = {scale}, {row.get('method', 'dense')} (Table {table.number})"
