"""Frames of results, as figures take them; and rows of tables."""

from __future__ import annotations

import math

import pandas as pd

from vggrepro import paper
from vggrepro.results.columns import TOP1
from vggrepro.results.tables import Table


def table3(ours: dict[tuple[str, str], float]) -> pd.DataFrame:
    """Table 3's frame with these top-1 errors of ours, intervals of ± 1."""
    rows = []
    for line in paper.published(3):
        scale = paper.Scale.parse(line["S"]).label
        value = ours.get((line["net"], scale), math.nan)
        row = {"net": line["net"], "S": scale, TOP1: value, f"{TOP1}_low": value - 1, f"{TOP1}_high": value + 1}
        rows.append(row | {f"{TOP1}_paper": float(line["top1_val_error"])})
    return pd.DataFrame(rows)


def line(table: Table, **labels: str) -> pd.Series:
    """The one row with these label cells."""
    frame = table.frame
    for name, value in labels.items():
        frame = frame[frame[name] == value]
    assert len(frame) == 1
    return frame.iloc[0]


def notes_of(table: Table, row: pd.Series) -> list[str]:
    """The texts of a row's footnotes."""
    return [table.notes[ord(mark) - ord("a")] for mark in row["note"].split(", ") if mark]
