"""Two reproductions side by side: Tables 3-7 of ours and of another folder of runs, and their difference.

On the same images the difference is judged image by image: its 95 % interval is Tango's, its p McNemar's exact one. On
different images the interval is Newcombe's for two independent errors, and there is no p.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from vggrepro import layout, paper, posteriors, statistics
from vggrepro.claims import p_text
from vggrepro.extras import Extra, labels_of
from vggrepro.layout import LABELS, MEASURES, Column
from vggrepro.paper import View
from vggrepro.shelf import Shelf
from vggrepro.statistics import Interval
from vggrepro.tables import CAPTIONS, ERRORS, NAN, setting, views_of


def side_by_side(ours: Shelf, theirs: Shelf, numbers: Sequence[int] = range(3, 8)) -> list[Extra]:
    """Tables `numbers` of both, without rows that neither has: "table3" and so on.

    Columns: the table's labels; of each error `X`: `X_ours`, `X_theirs`, `X_difference` (ours - theirs, points),
    `X_low`, `X_high` (its 95 % interval), `X_p` (NaN if the images differ), `X_paper`; `images_ours`,
    `images_theirs`.
    """
    rows = [views for number in numbers for views in views_of(number)]
    for shelf in (ours, theirs):
        shelf.rank_rows(rows)
    made = [_table(number, ours, theirs) for number in numbers]
    return [table for table in made if table is not None]


def paired(ours: Shelf, theirs: Shelf) -> bool:
    """Whether both were evaluated on the same images, in one order."""
    if ours.dataset.fingerprint != theirs.dataset.fingerprint:
        return False
    mine, others = ours.images, theirs.images
    return mine is None or others is None or bool(mine.keys.equals(others.keys))


def newcombe(wrong_a: int, images_a: int, wrong_b: int, images_b: int) -> Interval:
    """95 % interval of the difference a - b of two independent errors, in points (Newcombe 1998, method 10)."""
    a, b = 100 * wrong_a / images_a, 100 * wrong_b / images_b
    of_a, of_b = statistics.wilson(wrong_a, images_a), statistics.wilson(wrong_b, images_b)
    return Interval(a - b - math.hypot(a - of_a.low, of_b.high - b), a - b + math.hypot(of_a.high - a, b - of_b.low))


def _table(number: int, ours: Shelf, theirs: Shelf) -> Extra | None:
    records: list[dict[str, Any]] = []
    notes: list[str] = []
    for line, views in zip(paper.published(number), views_of(number), strict=True):
        mine, other = (_ranks(shelf, views, notes) for shelf in (ours, theirs))
        if mine is None and other is None:
            continue
        record: dict[str, Any] = {name: text for name, text in line.items() if not name.endswith("_error")}
        for name, least in zip(ERRORS, (1, posteriors.TOP_K), strict=True):
            record |= _measure(name, least, mine, other, ours, theirs)
            record[f"{name}_paper"] = float(line[name]) if line[name] else NAN
        record |= {"images_ours": _count(mine), "images_theirs": _count(other)}
        records.append(record)
    if not records:
        return None
    frame = pd.DataFrame.from_records(records).astype({"images_ours": "Int64", "images_theirs": "Int64"})
    names = [name for name in frame if name in LABELS]
    labels = frame[names].apply(lambda column: [layout.label(str(column.name), text) for text in column])
    groups = frame["group" if "group" in frame else names[0]] if number < 7 else [""] * len(frame)
    columns = [*labels_of(labels, names), *_columns(frame)]
    return Extra(f"table{number}", f"Table {number}", _caption(number, ours, theirs), frame, tuple(columns),
                 tuple(groups), tuple(dict.fromkeys(notes)))  # fmt: skip


def _caption(number: int, ours: Shelf, theirs: Shelf) -> str:
    settings = dict.fromkeys([setting(ours), setting(theirs)])
    return f"{CAPTIONS[number]} {' Theirs: '.join(settings)}"


def _ranks(shelf: Shelf, views: Sequence[View], notes: list[str]) -> np.ndarray | None:
    """Ranks of a row's mean posterior, or None; refused files are noted."""
    files = [shelf.file(view) for view in views]
    notes += [f"Not used: {file.path} ({file.refused})." for file in files if file.refused]
    if not files or any(file.refused or not file.present for file in files):
        return None
    return shelf.ranks(file.path for file in files)


def _count(ranks: np.ndarray | None) -> int | None:
    return None if ranks is None else len(ranks)


def _measure(
    name: str, least: int, mine: np.ndarray | None, other: np.ndarray | None, ours: Shelf, theirs: Shelf
) -> dict[str, float]:
    """An error of both: wrong are ranks of `least` or more; none where the classes are too few for it."""
    wrong_a = None if mine is None or len(ours.dataset.classes) <= least else mine >= least
    wrong_b = None if other is None or len(theirs.dataset.classes) <= least else other >= least
    result = {f"{name}_ours": _error(wrong_a), f"{name}_theirs": _error(wrong_b)}
    low = high = p = NAN
    if wrong_a is not None and wrong_b is not None:
        if paired(ours, theirs):
            made = statistics.compare(wrong_a, wrong_b)
            low, high, p = made.low, made.high, made.p
        else:
            interval = newcombe(int(wrong_a.sum()), len(wrong_a), int(wrong_b.sum()), len(wrong_b))
            low, high = interval.low, interval.high
    result[f"{name}_difference"] = result[f"{name}_ours"] - result[f"{name}_theirs"]
    return result | {f"{name}_low": low, f"{name}_high": high, f"{name}_p": p}


def _error(wrong: np.ndarray | None) -> float:
    return NAN if wrong is None else 100 * float(wrong.mean())


def _columns(frame: pd.DataFrame) -> list[Column]:
    result = []
    for name in ERRORS:
        top, short = MEASURES[name]
        if frame[[f"{name}_ours", f"{name}_theirs"]].isna().all(axis=None):
            continue
        for end, sub, heading in (
            ("ours", "ours", f"{short} ours"),
            ("theirs", "theirs", f"{short} theirs"),
            ("difference", "Δ", f"Δ {short}"),
        ):
            values = list(frame[f"{name}_{end}"])
            cells = [layout.number(value, "+" if sub == "Δ" else "") for value in values]
            best = () if sub == "Δ" else layout.smallest(cells)
            result.append(layout.column_of(top, sub, heading, cells, {sub: values}, best))
        result.append(layout.interval(top, f"Δ {short} 95 %", frame[f"{name}_low"], frame[f"{name}_high"]))
        if frame[f"{name}_p"].notna().any():
            values = list(frame[f"{name}_p"])
            cells = [layout.DASH if math.isnan(value) else p_text(value) for value in values]
            result.append(layout.column_of(top, "p", f"{short} p", cells, {"p": values}))
        values = list(frame[f"{name}_paper"])
        cells = [layout.number(value) for value in values]
        result.append(layout.column_of(top, "paper", f"{short} paper", cells, {"paper": values}))
    return result
