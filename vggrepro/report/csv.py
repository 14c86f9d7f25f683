"""Tables as CSV: one tidy file of all numbers, or a file for each table."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from vggrepro import paper
from vggrepro.errors import InputError
from vggrepro.results import answers, beyond, ensembles, fit
from vggrepro.results.beyond import BeyondTable
from vggrepro.results.columns import LABELS
from vggrepro.results.tables import Table, letter
from vggrepro.system.files import write_text
from vggrepro.system.progress import say

ENDS = (
    "",
    "_paper",
    "_difference",
    "_low",
    "_high",
    "_std",
    "_std_paper",
    "_starred",
    "_sd",
    "_each",
)  # of a measure's columns
# The other files that `write` may make.
BESIDE_TABLES = (*beyond.NAMES, *ensembles.NAMES, *answers.NAMES, fit.NAME, "table11", "table12")


def explained(table: Table) -> pd.DataFrame:
    """The raw frame with the texts of footnotes in place of their letters.

    Rows with a number of ours also get the remarks that hold for all rows.
    """
    frame = table.frame.copy()
    if "note" not in frame:
        return frame
    texts = {letter(place): note for place, note in enumerate(table.notes)}
    notes = []
    for marks, ran in zip(frame["note"], frame[list(table.measures)].notna().any(axis=1), strict=True):
        parts = [texts[mark] for mark in marks.split(", ") if mark]
        notes.append(" ".join([*parts, *table.remarks, *table.training] if ran else parts))
    return frame.assign(note=notes)


def tidy(tables: Sequence[Table]) -> pd.DataFrame:
    """All tables in one long frame, a line for each measure of each row.

    Columns: `table`, `row` (from 1, in the paper's order), the label columns (`net`, `S`, `Q`, `method`,
    `group`, `models`; empty where a table has none), `measure`, `ours`, `paper`, `difference`, `low` and `high` (the
    95 % interval of ours), and the remaining columns of the tables. Table 1 holds no numbers and is left out.
    """
    records: list[dict[str, Any]] = []
    for table in (table for table in tables if table.measures):
        measured = {f"{name}{end}" for name in table.measures for end in ENDS}
        rest = [str(name) for name in table.frame if name not in {*measured, *table.labels}]
        for place, (_, line) in enumerate(explained(table).iterrows(), 1):
            start: dict[str, Any] = {"table": table.number, "row": place, **dict.fromkeys(LABELS, "")}
            start |= {name: line[name] for name in table.labels}
            for name in table.measures:
                record = {**start, "measure": name, "ours": line[name]}
                ends = ("paper", "difference", "low", "high")
                record |= {end: line.get(f"{name}_{end}", math.nan) for end in ends}
                others = ("std", "std_paper", "starred", "sd", "each")  # of Tables 11 and 12, and over seeds
                record |= {end: line[f"{name}_{end}"] for end in others if f"{name}_{end}" in line}
                records.append(record | {column: line[column] for column in rest})
    frame = pd.DataFrame.from_records(records)
    whole = ("parameters", "parameters_here", "images", "classes", "train_images")
    return frame.astype({name: "Int64" for name in whole if name in frame})


def csv_text(tables: Sequence[Table]) -> str:
    """`tidy` as CSV with raw floats; `pandas.read_csv` reads it back."""
    return str(tidy(tables).to_csv(index=False, lineterminator="\n"))


def write(
    tables: Sequence[Table],
    folder: Path,
    others: Sequence[BeyondTable] = (),
    more: Mapping[str, pd.DataFrame] | None = None,
) -> list[Path]:
    """Writes `table3.csv` … and the other results' `curve.csv` … (raw floats, explained notes), each atomically.

    `more` are further frames by the names of their files.

    Removes other results that an earlier call wrote and that this one does not write.

    Returns:
        their paths.

    Raises:
        InputError: the folder is that of the paper's own numbers.
    """
    if folder.resolve() == paper.tables_folder().resolve():
        raise InputError(f"{folder} holds the paper's numbers; rename the data set or give --tables another folder")
    frames = {f"table{table.number}": explained(table) for table in tables}
    frames |= {table.name: table.frame for table in others} | dict(more or {})
    paths = []
    for name, frame in frames.items():
        paths.append(folder / f"{name}.csv")
        write_text(paths[-1], str(frame.to_csv(index=False, lineterminator="\n")))
    old = [path for name in BESIDE_TABLES if (path := folder / f"{name}.csv").exists() and path not in paths]
    for path in old:
        path.unlink()
    if old:
        say(f"removed from {folder}, as older than these tables: {', '.join(path.name for path in old)}")
    return paths
