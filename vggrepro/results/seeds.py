"""The rows of Tables 3-6 over seeds: mean and standard deviation of our errors. Fusions are made within a seed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from vggrepro import paper
from vggrepro.paper import Row
from vggrepro.results.beyond import BeyondTable
from vggrepro.results.columns import DASH, ERRORS, MEASURES, NAN, Column, Kind, column_of, label, labels_of, numbers
from vggrepro.results.scores import Scores
from vggrepro.results.tables import errors_of, setting

NAME = "seeds"


def over_seeds(scores: Scores) -> BeyondTable | None:
    """The rows that at least one seed has; None with one seed.

    Columns: `table`, `row` (what is averaged), `seeds` (how many have it); of each error X its mean `X`, `X_sd` (the
    standard deviation between seeds; NaN for one), `X_each` (every seed's), `X_paper`.
    """
    if not scores.seeds:
        return None
    records = [record for table in range(3, 7) for row in paper.rows(table) if (record := _record(table, row, scores))]
    if not records:
        return None
    frame = pd.DataFrame.from_records(records)
    folders = ", ".join(str(each.runs) for each in (scores, *scores.seeds))
    caption = (
        f"Means ± standard deviations over the seeds in {folders}; the tables above are of the first. An ensemble is "
        f"made of nets of one seed. {setting(scores)}"
    )
    groups = tuple(f"Table {table}" for table in frame["table"])
    return BeyondTable(NAME, "Over seeds", caption, frame, tuple(_columns(frame)), groups)


def _record(table: int, row: Row, scores: Scores) -> dict[str, Any] | None:
    """One row over the seeds that have all its files, or None."""
    made = []
    for seed in (scores, *scores.seeds):
        files = [seed.file(view) for view in row.views]
        if all(file.present and not file.refused for file in files):
            made.append(errors_of(seed.ranks(file.path for file in files), len(seed.dataset.classes)))
    if not made:
        return None
    name = ", ".join(label(key, text) for key, text in row.labels.items() if text)
    record: dict[str, Any] = {"table": table, "row": name, "seeds": len(made)}
    for error, printed in zip(ERRORS, (row.top1, row.top5), strict=True):
        each = [one.get(error, NAN) for one in made]
        record |= {error: float(np.mean(each)), f"{error}_sd": float(np.std(each, ddof=1)) if made[1:] else NAN}
        record |= {f"{error}_each": " ".join(f"{value:.4f}" for value in each)}
        record[f"{error}_paper"] = NAN if printed is None else printed
    return record


def _columns(frame: pd.DataFrame) -> Iterator[Column]:
    yield from labels_of(frame, ("table", "row", "seeds"))
    for name in (name for name in ERRORS if frame[name].notna().any()):
        top, short = MEASURES[name]
        spreads = zip(frame[name], frame[f"{name}_sd"], strict=True)
        cells = [f"{mean:.1f} ± {DASH if np.isnan(spread) else f'{spread:.1f}'}" for mean, spread in spreads]
        yield column_of(Kind.OURS, top, "ours", short, frame[name], cells)
        yield numbers(Kind.PAPER, top, "paper", f"{short} paper", frame[f"{name}_paper"])
