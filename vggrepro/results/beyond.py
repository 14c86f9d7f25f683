"""Results beyond the paper's tables: error against Q, other papers' crops, the 5 × 5 net of Sect. 4.1.

A result is made if its posteriors are there. A file that the tables refuse is refused here too, and named in a note.
`ensembles` chooses nets to fuse; it is a module of its own because it reads the files again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from vggrepro import paper
from vggrepro.paper import S256, Run, View
from vggrepro.posteriors.protocol import LABELS, OTHER_CROPS, SPLIT, FileName
from vggrepro.results.columns import (
    DASH,
    ERRORS,
    MEASURES,
    NAN,
    TOP1,
    Column,
    Kind,
    column_of,
    interval,
    labels_of,
    measures_of,
    number,
    numbers,
    seeds_of,
    smallest,
    with_spread,
)
from vggrepro.results.conditions import conditions, shared
from vggrepro.results.gaps import not_used
from vggrepro.results.intervals import Comparison
from vggrepro.results.paper_claims import Pair, Side
from vggrepro.results.scores import File, Scores
from vggrepro.results.tables import errors_over, setting
from vggrepro.results.verdicts import compared

NAMES = CURVE, CROPS, SHALLOW = "curve", "crops", "shallow"
SHALLOW_PAPER = 7.0  # Sect. 4.1: the top-1 error of the 5 x 5 net minus B's, in points, on a centre crop

Available = dict[Run, dict[str, tuple[int, ...]]]
Having = tuple[Scores, Sequence[File]]  # a seed, and the files of one line with that seed


@dataclass(frozen=True, slots=True)
class BeyondTable:
    """A result beyond the paper.

    `name` is that of its CSV file, `frame` has the raw numbers (per cent), `columns` what a page shows of them, and
    `groups` the group of each row.
    """

    name: str
    title: str
    caption: str
    frame: pd.DataFrame
    columns: tuple[Column, ...]
    groups: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of a result before it is scored: its labels, and the posteriors that it averages."""

    labels: dict[str, Any]
    views: tuple[View, ...]


def available(scores: Scores) -> Available:
    """The Q at which each run has posteriors, with any seed and for each method. Reads only names of folders and files.

    Runs are in the paper's order. Folders that are not named like the paper's runs (`D-256-512`) are left out.
    """
    found: dict[Run, dict[str, set[int]]] = {}
    for folder in (folder for seed in (scores, *scores.seeds) for folder in seed.runs.glob("*/posteriors")):
        run = Run.parse(folder.parent.name)
        for name in filter(None, (FileName.parse(path.name) for path in folder.iterdir() if path.is_file())):
            if run is not None and name.split == SPLIT and not name.variant:
                found.setdefault(run, {}).setdefault(name.method, set()).add(name.q)
    return {
        run: {method: tuple(sorted(found[run][method])) for method in LABELS if method in found[run]}
        for run in sorted(found, key=_place)
    }


def _place(run: Run) -> tuple[int, int, int, bool]:
    """For sorting: nets as in Table 1, scales as in Table 3 ([256;512] after 384)."""
    return list(paper.NETS).index(run.net), run.scale.high, run.scale.low, run.fc_only


def rows(at_hand: Available) -> list[tuple[View, ...]]:
    """The posteriors that each line of `beyond_tables` averages."""
    return [entry.views for entries in (curve_rows, crops_rows, shallow_rows) for entry in entries(at_hand)]


def beyond_tables(scores: Scores) -> list[BeyondTable]:
    """All results beyond the paper that the posteriors allow, each file read once."""
    at_hand = available(scores)
    scores.rank_rows(rows(at_hand))
    made = (curve(scores, at_hand), crops(scores, at_hand), shallow(scores, at_hand))
    return [extra for extra in made if extra is not None]


def curve_rows(at_hand: Available) -> list[Entry]:
    """A line for each run, method and Q."""
    return [
        Entry({"run": run.name, "net": run.net, "S": run.scale.label, "method": LABELS[method], "Q": q},
              (View(run, q, method),))
        for run, methods in at_hand.items()
        for method in ("dense", "multicrop")
        for q in methods.get(method, ())
    ]  # fmt: skip


def crops_rows(at_hand: Available) -> list[Entry]:
    """For each run that has other papers' crops: these, then dense and multi-crop evaluation at the paper's Q."""
    result = []
    for run, methods in at_hand.items():
        if not methods.keys() & set(OTHER_CROPS):
            continue
        three = run.scale.test_scales
        whole, crops50 = 2 * len(three), 2 * paper.GRID**2 * len(three)
        lines: list[tuple[str, str, tuple[int, ...], tuple[str, ...]]] = []
        for method in ("center", "tencrop"):
            seen = "1 crop" if method == "center" else "10 crops"
            lines += [(LABELS[method], seen, (q,), (method,)) for q in methods.get(method, ())]
        lines += [
            (LABELS["googlenet"], "144 crops", paper.GOOGLENET_QS, ("googlenet",)),
            ("dense, one Q", "2 whole images", (run.scale.middle,), ("dense",)),
            ("dense", f"{whole} whole images", three, ("dense",)),
            ("multi-crop", f"{crops50} crops", three, ("multicrop",)),
            ("multi-crop & dense", f"{crops50} crops, {whole} whole images", three, ("multicrop", "dense")),
        ]
        for protocol, seen, qs, kinds in lines:
            if all(set(qs) <= set(methods.get(kind, ())) for kind in kinds):
                labels = {"run": run.name, "protocol": protocol, "seen": seen, "Q": ", ".join(map(str, qs))}
                result.append(Entry(labels, tuple(View(run, q, kind) for kind in kinds for q in qs)))
    return result


def shallow_rows(at_hand: Available) -> list[Entry]:
    """A line for B and one for the shallow net of 5 × 5 filters, for each method and Q that both have (Sect. 4.1)."""
    pair = Run("B", S256), Run("B-5x5", S256)
    if not all(run in at_hand for run in pair):
        return []
    deep, wide = (at_hand[run] for run in pair)
    shared = [(method, q) for method in ("center", "dense") for q in deep.get(method, ()) if q in wide.get(method, ())]
    return [
        Entry({"net": run.net, "method": LABELS[method], "Q": q}, (View(run, q, method),))
        for method, q in shared
        for run in pair
    ]


def score(scores: Scores, entries: Iterable[Entry]) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The entries whose files may be used, and notes on the files that may not.

    Columns: the labels; `images`; both errors with `_low` and `_high` or, with several seeds, `_sd` and `_each`, and
    `n`, as in the tables; `note`: how the runs differ from the paper's.
    """
    records, asked = [], list[File]()
    for entry in entries:
        asked += [seed.file(view) for seed in (scores, *scores.seeds) for view in entry.views]
        having = scores.having(entry.views)
        if not having:
            continue
        first, files = having[0]
        record = entry.labels | {"images": len(first.ranks(file.path for file in files))}
        record |= errors_over(having, several=bool(scores.seeds)) | _seeds(scores, having)
        records.append(record | {"note": _note(scores, having)})
    return pd.DataFrame.from_records(records), tuple(not_used(asked))


def _seeds(scores: Scores, having: Sequence[Having]) -> dict[str, int]:
    """The number of seeds that have a line, where there are several."""
    return {"n": len(having)} if scores.seeds else {}


def _note(scores: Scores, having: Sequence[Having]) -> str:
    return " ".join([*conditions(scores, having), *shared(scores)])


def curve(scores: Scores, at_hand: Available) -> BeyondTable | None:
    """Error against Q of each run: `run`, `net`, `S`, `method`, `Q`, `images`, errors.

    A page shows the top-1 error, with a column for each Q.
    """
    frame, notes = score(scores, curve_rows(at_hand))
    if frame.empty or frame["Q"].nunique() < 2:
        return None
    wide = frame.pivot(index=["run", "method"], columns="Q", values=TOP1)
    wide = wide.reindex(pd.MultiIndex.from_frame(frame[["run", "method"]].drop_duplicates()))
    labels = wide.index.to_frame(index=False)
    cells = wide.map(number)
    bold = [_best_of_line(list(line)) for line in cells.to_numpy()]
    columns = labels_of(labels, ("run", "method"))
    for place, q in enumerate(wide.columns):
        best = [line[place] for line in bold]
        top = f"{MEASURES[TOP1].heading} at Q"
        columns.append(column_of(Kind.NUMBER, top, str(q), str(q), wide[q], cells[q], best))
    told = " Only the means are shown here." if scores.seeds else ""
    caption = f"Top-1 error of each run at each single Q; the best Q of a line is bold. {setting(scores)}{told}"
    net = dict(zip(frame["run"], frame["net"], strict=True))
    groups = tuple(net[run] for run in labels["run"])
    return BeyondTable(CURVE, "Error against the test scale Q", caption, frame, tuple(columns), groups, notes)


def _best_of_line(cells: list[str]) -> list[bool]:
    """Marks the smallest numbers; none if all are equal."""
    alike = len({cell for cell in cells if cell != DASH}) == 1
    return [False] * len(cells) if alike else smallest(cells)


def crops(scores: Scores, at_hand: Available) -> BeyondTable | None:
    """Other papers' crops beside dense and multi-crop: `run`, `protocol`, `seen`, `Q`, `images`, errors."""
    frame, notes = score(scores, crops_rows(at_hand))
    if frame.empty:
        return None
    columns = [*labels_of(frame, ("run", "protocol", "seen", "Q")), *measures_of(frame, best=False)]
    caption = (
        "The central crop, Krizhevsky et al.'s 10 crops and Szegedy et al.'s 144 beside the paper's protocols; what "
        f"is seen of an image counts mirrored views and all Q. {setting(scores)}"
    )
    return BeyondTable(
        CROPS, "Crops against dense evaluation", caption, frame, tuple(columns), tuple(frame["run"]), notes
    )


def shallow(scores: Scores, at_hand: Available) -> BeyondTable | None:
    """Sect. 4.1's ablation: B and B with its pairs of 3 × 3 layers made single 5 × 5 layers, on the same images.

    Columns: `method`, `Q`, `images`; of each measure `X`: `X_B`, `X_B5x5`, `X_difference` (the shallow net's minus
    B's, points), `X_low`, `X_high` (its paired 95 % interval), `X_paper` (the published difference), `note`. With
    several seeds `X_sd`, the standard deviation of the difference, and `n`; its test over seeds is claim 5's.
    """
    lines = shallow_rows(at_hand)
    pairs = {
        Pair(Side("B-5x5", wide.views), Side("B", deep.views)): deep
        for deep, wide in zip(lines[::2], lines[1::2], strict=True)
    }
    ranks = [seed.ranks_of([line.views for line in lines]) for seed in (scores, *scores.seeds)]
    measures = [name for name, best in ERRORS.items() if len(scores.dataset.classes) > best]
    made = compared(pairs, ranks, [MEASURES[name].short for name in measures])
    records = []
    for pair, tests in made.items():
        deep = pairs[pair]
        having = scores.having([*pair.second.views, *pair.first.views])
        record = {"method": deep.labels["method"], "Q": deep.labels["Q"]}
        for name in measures:
            test = tests[MEASURES[name].short]
            record |= {"images": test.images, f"{name}_B": test.b, f"{name}_B5x5": test.a}
            record |= {f"{name}_difference": test.difference}
            record |= _spread(name, test) if scores.seeds else {f"{name}_low": test.low, f"{name}_high": test.high}
            published = deep.labels["method"] == LABELS["center"] and name == TOP1
            record[f"{name}_paper"] = SHALLOW_PAPER if published else NAN
        records.append(record | _seeds(scores, having) | {"note": _note(scores, having)})
    notes = not_used([seed.file(view) for seed in (scores, *scores.seeds) for line in lines for view in line.views])
    frame = pd.DataFrame.from_records(records)
    if frame.empty:
        return None
    spread = "standard deviation over seeds (claim 5 tests it)" if scores.seeds else "paired 95 % interval"
    caption = (
        "B against the shallow net with one 5 × 5 layer for each pair of 3 × 3 layers (Sect. 4.1); Δ is the shallow "
        f"net's error minus B's, with its {spread}. {setting(scores)}"
    )
    columns = [*labels_of(frame, ("method", "Q")), *_difference_columns(frame), *seeds_of(frame)]
    return BeyondTable(SHALLOW, "Small filters", caption, frame, tuple(columns), tuple(frame["method"]), tuple(notes))


def _spread(name: str, made: Comparison) -> dict[str, float]:
    """The standard deviation of a difference over seeds; NaN where one seed has both sides."""
    return {f"{name}_sd": float(np.std(made.each, ddof=1)) if made.each else NAN}


def _difference_columns(frame: pd.DataFrame) -> list[Column]:
    result = []
    for name in ERRORS:
        if f"{name}_B" not in frame:
            continue
        top, short = MEASURES[name]
        result += [
            numbers(Kind.NUMBER, top, "B", f"{short} B", frame[f"{name}_B"]),
            numbers(Kind.NUMBER, top, "B-5x5", f"{short} B-5x5", frame[f"{name}_B5x5"]),
        ]
        difference = numbers(Kind.DIFFERENCE, top, "Δ", f"Δ {short}", frame[f"{name}_difference"])
        if f"{name}_sd" in frame:
            result.append(with_spread(difference, frame[f"{name}_sd"]))
        else:
            result += [difference, interval(top, f"Δ {short} 95 %", frame[f"{name}_low"], frame[f"{name}_high"])]
        if frame[f"{name}_paper"].notna().any():
            published = frame[f"{name}_paper"]
            result.append(numbers(Kind.DIFFERENCE, top, "Δ paper", f"Δ {short} paper", published))
    return result
