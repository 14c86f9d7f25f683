"""Two reproductions side by side: Tables 3-7 of ours and of another folder of runs, and their difference.

On the same images the difference is tested image by image: Tango's 95 % interval and McNemar's exact p. On different
images the interval is Newcombe's for two independent errors, and there is no p.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from vggrepro import paper
from vggrepro.results import intervals
from vggrepro.results.beyond import BeyondTable
from vggrepro.results.columns import (
    ERRORS,
    LABELS,
    MEASURES,
    NAN,
    Column,
    Kind,
    column_of,
    groups_of,
    interval,
    label,
    labels_of,
    numbers,
    p_text,
)
from vggrepro.results.gaps import not_used
from vggrepro.results.intervals import Interval
from vggrepro.results.scores import File, Scores
from vggrepro.results.tables import CAPTIONS, setting, views_of


def side_by_side(ours: Scores, theirs: Scores, numbers: Sequence[int] = range(3, 8)) -> list[BeyondTable]:
    """Tables `numbers` of both, named "table3" and so on, without the rows that neither has.

    Columns: the table's labels; of each error `X`: `X_ours`, `X_theirs`, `X_difference` (ours - theirs, points),
    `X_low`, `X_high` (its 95 % interval), `X_p` (NaN if the images differ), `X_paper`; `images_ours`,
    `images_theirs`.
    """
    rows = [views for number in numbers for views in views_of(number)]
    for scores in (ours, theirs):
        scores.rank_rows(rows)
    made = [_table(number, ours, theirs) for number in numbers]
    return [table for table in made if table is not None]


def paired(ours: Scores, theirs: Scores) -> bool:
    """Whether both were evaluated on the same images, in one order."""
    if ours.dataset.fingerprint != theirs.dataset.fingerprint:
        return False
    mine, others = ours.images, theirs.images
    return mine is None or others is None or bool(mine.keys.equals(others.keys))


def newcombe(wrong_a: int, images_a: int, wrong_b: int, images_b: int) -> Interval:
    """95 % interval of the difference a - b of two independent errors, in points (Newcombe 1998, method 10)."""
    a, b = 100 * wrong_a / images_a, 100 * wrong_b / images_b
    of_a, of_b = intervals.wilson(wrong_a, images_a), intervals.wilson(wrong_b, images_b)
    return Interval(a - b - math.hypot(a - of_a.low, of_b.high - b), a - b + math.hypot(of_a.high - a, b - of_b.low))


def _table(number: int, ours: Scores, theirs: Scores) -> BeyondTable | None:
    records: list[dict[str, Any]] = []
    asked: list[File] = []
    for line, views in zip(paper.published(number), views_of(number), strict=True):
        files = [[scores.file(view) for view in views] for scores in (ours, theirs)]
        asked += [*files[0], *files[1]]
        mine, other = _ranks(ours, files[0]), _ranks(theirs, files[1])
        if mine is None and other is None:
            continue
        record: dict[str, Any] = {name: text for name, text in line.items() if not name.endswith("_error")}
        for name, least in ERRORS.items():
            record |= _measure(name, least, mine, other, ours, theirs)
            record[f"{name}_paper"] = float(line[name]) if line[name] else NAN
        record |= {"images_ours": _count(mine), "images_theirs": _count(other)}
        records.append(record)
    if not records:
        return None
    frame = pd.DataFrame.from_records(records).astype({"images_ours": "Int64", "images_theirs": "Int64"})
    names = [name for name in frame if name in LABELS]
    labels = frame[names].apply(lambda column: [label(str(column.name), text) for text in column])
    columns = [*labels_of(labels, names), *_columns(frame)]
    return BeyondTable(f"table{number}", f"Table {number}", _caption(number, ours, theirs), frame, tuple(columns),
                 tuple(groups_of(frame)), tuple(not_used(asked)))  # fmt: skip


def _caption(number: int, ours: Scores, theirs: Scores) -> str:
    settings = dict.fromkeys([setting(ours), setting(theirs)])
    return f"{CAPTIONS[number]} {' Theirs: '.join(settings)}"


def _ranks(scores: Scores, files: Sequence[File]) -> np.ndarray | None:
    """(images,) ranks of the true classes under a row's mean posterior; None if a file is missing or refused."""
    if not files or any(file.refused or not file.present for file in files):
        return None
    return scores.ranks(file.path for file in files)


def _count(ranks: np.ndarray | None) -> int | None:
    return None if ranks is None else len(ranks)


def _measure(
    name: str, least: int, mine: np.ndarray | None, other: np.ndarray | None, ours: Scores, theirs: Scores
) -> dict[str, float]:
    """An error of both sides, in per cent. Ranks of `least` or more are wrong; NaN with `least` classes or fewer."""
    wrong_a = None if mine is None or len(ours.dataset.classes) <= least else mine >= least
    wrong_b = None if other is None or len(theirs.dataset.classes) <= least else other >= least
    result = {f"{name}_ours": _error(wrong_a), f"{name}_theirs": _error(wrong_b)}
    low = high = p = NAN
    if wrong_a is not None and wrong_b is not None:
        if paired(ours, theirs):
            made = intervals.compare(wrong_a, wrong_b)
            low, high, p = made.low, made.high, made.p
        else:
            ends = newcombe(int(wrong_a.sum()), len(wrong_a), int(wrong_b.sum()), len(wrong_b))
            low, high = ends.low, ends.high
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
        result += [
            numbers(Kind.OURS, top, "ours", f"{short} ours", frame[f"{name}_ours"], best=True),
            numbers(Kind.NUMBER, top, "theirs", f"{short} theirs", frame[f"{name}_theirs"], best=True),
            numbers(Kind.DIFFERENCE, top, "Δ", f"Δ {short}", frame[f"{name}_difference"]),
            interval(top, f"Δ {short} 95 %", frame[f"{name}_low"], frame[f"{name}_high"]),
        ]
        if (p := frame[f"{name}_p"]).notna().any():
            result.append(column_of(Kind.NUMBER, top, "p", f"{short} p", p, map(p_text, p)))
        result.append(numbers(Kind.PAPER, top, "paper", f"{short} paper", frame[f"{name}_paper"]))
    return result
