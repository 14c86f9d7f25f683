"""The figures that the page can show, with their titles, captions and alternative texts."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from scipy import stats

from vggrepro import paper
from vggrepro.nets.layers import layers
from vggrepro.report import figures, training_figures
from vggrepro.report.page.contents import Contents, RunFacts
from vggrepro.report.page.html import minus
from vggrepro.report.page.mistakes import class_words
from vggrepro.results import claims
from vggrepro.results.answers import Answers
from vggrepro.results.claims import Finding
from vggrepro.results.columns import MEASURES, TOP1, TOP5, number, span
from vggrepro.results.paper_claims import Relation
from vggrepro.results.scores import Scores
from vggrepro.results.tables import views_of

LEAST = 5  # rows; a rank correlation over fewer is not shown
SHOWN = 40  # the most classes that the confusion matrix shows


@dataclass(frozen=True, slots=True)
class Drawing:
    """A figure to be drawn: the name of its file, its section of the page, and its texts."""

    name: str
    section: str  # "claims", "errors", "classes", "calibration", "training", "filters" or "nets"
    title: str
    caption: str
    alt: str
    draw: Callable[[], Figure]


def drawings(contents: Contents) -> list[Drawing]:
    """Every figure that has a result of ours, in the page's order. All names can be names of files and HTML ids."""
    drawn = [
        *forest(contents.document.findings),
        *errors(contents),
        *answered(contents),
        *curves(contents.runs),
        *first_layers(contents.runs),
        receptive_fields(contents.scores),
    ]
    result: dict[str, Drawing] = {}
    for one in drawn:
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", one.name)
        while name in result:
            name += "-"
        result[name] = dataclasses.replace(one, name=name)
    return list(result.values())


def forest(findings: Sequence[Finding]) -> Iterator[Drawing]:
    """The differences that decide the claims, with their intervals."""
    frame = deciding_frame(findings)
    if frame.empty:
        return
    parts = [
        minus(f"{row['label']}: {row['difference']:+.1f} points, {span(row['low'], row['high'])}")
        for row in frame.to_dict("records")
    ]
    once = "" if frame["each"].map(len).any() else " One seed: each net was trained once."
    yield Drawing(
        "claims-forest", "claims", "The difference that decides each claim",
        "First − second: left of zero the first errs less. Grey: where the claim expects it. Filled: ours, 95 %; "
        "hollow: the paper's. Each claim is shown by the comparison least in its favour. "
        f"{len(frame)} of the {len(findings)} claims were tested on images.{once}",
        "Differences in points. " + "; ".join(parts) + ".",
        lambda: figures.forest(frame),
    )  # fmt: skip


def deciding_frame(findings: Sequence[Finding]) -> pd.DataFrame:
    """A row for each claim that was tested: the columns of `figures.forest`."""
    records = []
    for finding in findings:
        outcome = finding.deciding
        test = outcome.deciding if outcome else None
        if outcome is None or test is None:
            continue
        made = test.comparison
        kind = outcome.pair.kind
        label = f"{finding.claim.number}. {outcome.pair.label}, {test.measure}"
        label += "" if kind is Relation.LOWER else f" ({kind})"
        record: dict[str, Any] = {"label": label, "measure": test.measure, "verdict": finding.verdict}
        record["claimed_low"], record["claimed_high"] = _claimed(kind, test.margin or 0.0)
        record |= {"difference": made.difference, "low": made.low, "high": made.high, "each": made.each}
        records.append(record | {"difference_paper": claims.printed(outcome.pair, test.measure)["difference_paper"]})
    return pd.DataFrame.from_records(records)


def _claimed(kind: Relation, margin: float) -> tuple[float, float]:
    """The differences, in points, that a claim allows."""
    return {
        Relation.LOWER: (-math.inf, 0.0),
        Relation.SLIGHTLY_LOWER: (-margin, 0.0),
        Relation.ALIKE: (-margin, margin),
        Relation.NOT_LOWER: (-margin, math.inf),
    }[kind]


def receptive_fields(scores: Scores) -> Drawing:
    """The receptive fields of each net's conv. layers, beside the crop."""
    fields = {
        net: [layer.field for layer in layers(scores.architecture(net)) if layer.name.startswith("conv")]
        for net in paper.NETS
        if net != "A-LRN"  # the same layers as A
    }
    crop = scores.geometry.crop
    return Drawing(
        "receptive-fields", "nets", "Receptive fields of the convolutions",
        f"The side of the square of input pixels that a value of each layer depends on. The broken line is the crop of "
        f"{crop} pixels: a field above it is larger than the crop, and padding with zeros fills the rest.",
        f"The field of the last convolution, with a crop of {crop} pixels: "
        + ", ".join(f"{net} {sides[-1]}" for net, sides in fields.items()) + " pixels.",
        lambda: training_figures.receptive_fields(fields, crop),
    )  # fmt: skip


def errors(contents: Contents) -> Iterator[Drawing]:
    """Our errors against the paper's, and errors by depth, S, Q and method."""
    points = agreement_frame(contents)
    if len(points) > 1:
        yield Drawing("agreement", "errors", "Ours against the paper's", _rank_caption(points), _agreement_alt(points),
                      lambda: figures.agreement(points))  # fmt: skip
    table3, bars = contents.table(3).frame, methods_frame(contents)
    for measure in _measured(table3):
        yield _depth(table3, measure)
    several = table3.groupby("net")[TOP1].transform("count") > 1  # nets that ran at two S or more
    for measure in _measured(table3[several]):
        yield _training_scale(table3[several], measure)
    for measure in _measured(bars):
        yield _methods(bars, measure)
    yield from _by_test_scale(contents.by_test_scale)


def _depth(frame: pd.DataFrame, measure: str) -> Drawing:
    text = "One test scale (Table 3). C and D both have 16 weight layers; C's additional ones see 1 × 1 pixels."
    alt, draw = _alt(frame, measure, ("net", "S")), partial(figures.against_depth, frame, measure)
    return _of_measure(measure, "depth", "against depth", text, f"by net. {alt}", draw)


def _training_scale(frame: pd.DataFrame, measure: str) -> Drawing:
    text = "One test scale (Table 3). [256;512] is scale jitter, tested at Q = 384."
    alt, draw = _alt(frame, measure, ("net", "S")), partial(figures.against_training_scale, frame, measure)
    return _of_measure(
        measure, "training-scale", "against the training scale S", text, f"by training scale. {alt}", draw
    )


def _methods(frame: pd.DataFrame, measure: str) -> Drawing:
    text = "Q = 256, 384, 512 (Tables 5 and 6); fused nets in grey."
    alt, draw = _alt(frame, measure, ("nets", "method")), partial(figures.methods, frame, measure)
    return _of_measure(measure, "methods", "by method", text, f"by method, as bars. {alt}", draw)


def _of_measure(measure: str, name: str, title: str, text: str, alt: str, draw: Callable[[], Figure]) -> Drawing:
    """A drawing of an error; its title and its alternative text begin with the name of the error."""
    short = MEASURES[measure].short
    error = f"{short.capitalize()} error"
    return Drawing(f"{name}-{short}", "errors", f"{error} {title}", text, f"{error} {alt}", draw)


def _by_test_scale(frame: pd.DataFrame) -> Iterator[Drawing]:
    """Error against Q, a figure for each net with the runs that were tested at two Q or more."""
    if frame.empty:
        return
    frame = frame[(frame["method"] == "dense") & ~frame["run"].str.endswith("-fc")]
    counts = frame.groupby("run")["Q"].transform("nunique")
    for net in paper.NETS:
        lines = frame[(frame["net"] == net) & (counts > 1)]
        if lines.empty:
            continue
        yield Drawing(
            f"test-scale-{net.lower()}", "errors", f"Net {net}: top-1 error against the test scale Q",
            "Dense evaluation at a single Q. The markers were measured, the lines between them were not. The paper "
            "prints averages over Q alone (Table 4).",
            f"Top-1 error of net {net} by test scale. " + _alt(lines, TOP1, ("S", "Q")),
            lambda lines=lines: figures.against_test_scale(lines, TOP1),  # type: ignore[misc]
        )  # fmt: skip


def answered(contents: Contents) -> Iterator[Drawing]:
    """Figures of the best posterior file: its wrong answers by class, and right answers against confidence."""
    made = contents.answers
    if made is None:
        return
    shares, rows, names = confusion_shares(made, class_words(contents.dataset))
    told = "" if len(rows) == len(names) else f"The {len(rows)} classes of the largest error. "
    yield Drawing(
        "confusion", "classes", "Which class is taken for which",
        f"{told}A line is a true class; numbers are per cent of its images, without the smallest. Green: right; "
        "red: wrong. The stronger the colour, the larger the share.",
        f"Shares of the images of {len(rows)} classes by answer. " + _confusion_alt(shares, rows, names),
        lambda: figures.confusion(shares, rows, names),
    )  # fmt: skip
    bins = made.calibration()
    yield Drawing(
        "reliability", "calibration", "Confidence and right answers",
        "Each point is a bin of confidence. On the line the net is as right as it is confident; below it, it is too "
        "sure. The bars show how many images each bin has.",
        "Right answers by confidence: " + "; ".join(
            f"{row['confidence']:.0f} % sure, {row['right']:.0f} % right, {row['images']} images"
            for row in bins.to_dict("records")) + ".",
        lambda: figures.reliability(bins),
    )  # fmt: skip


def confusion_shares(made: Answers, words: Sequence[str]) -> tuple[np.ndarray, list[str], list[str]]:
    """Per cent of each class's images by answer, (rows, columns), and the names of rows and columns.

    With more than `SHOWN` classes: those of the largest error, and a last column for all other answers.
    """
    images = made.counts.sum(axis=1)
    there = np.flatnonzero(images)
    if len(made.counts) > SHOWN:
        errors = 1 - np.diag(made.counts)[there] / images[there]
        there = np.sort(there[np.argsort(-errors, kind="stable")[:SHOWN]])
    shares = 100 * made.counts[there] / images[there, None]
    names = [words[label] for label in there.tolist()]
    if len(there) == len(made.counts):
        return shares, names, names
    rest = 100 - shares[:, there].sum(axis=1, keepdims=True)
    return np.hstack([shares[:, there], rest]), names, [*names, "other"]


def _confusion_alt(shares: np.ndarray, rows: Sequence[str], names: Sequence[str]) -> str:
    """The ten most frequent wrong answers."""
    wrong = np.where(np.eye(*shares.shape) > 0, 0, shares)
    first = np.argsort(-wrong, axis=None, kind="stable")[:10]
    pairs = [(int(row), int(column)) for row, column in zip(*np.unravel_index(first, wrong.shape), strict=True)]
    parts = [
        f"{rows[row]} as {names[column]} {wrong[row, column]:.0f} %" for row, column in pairs if wrong[row, column]
    ]
    return f"Most frequent mistakes: {'; '.join(parts)}." if parts else "No mistake."


def curves(runs: Sequence[RunFacts]) -> Iterator[Drawing]:
    """Training curves: all runs in one figure, then a figure for each run."""
    trained = [run for run in runs if run.curve["loss"].notna().any()]
    if len(trained) > 1:
        before = epochs_before(trained)
        frames = {run.name: run.curve.assign(epoch=run.curve["epoch"] + before[run.name]) for run in trained}
        ends = ", ".join(f"{run.name} {number(run.curve['top1_error'].iloc[-1])} %" for run in trained)
        yield Drawing(
            "all-runs", "training", "All runs: error by epoch",
            "Top-1 error while training; the tables' protocols see more of each image. A run of another S goes on "
            "after the run that it starts from.",
            f"Top-1 error by epoch, while training. At the end: {ends}.",
            lambda: training_figures.all_runs(frames, {run.name: (run.net, run.scale) for run in trained}),
        )  # fmt: skip
    for run in trained:
        yield Drawing(
            f"training-{run.name}", "training", run.name, _training_caption(run), _training_alt(run),
            lambda run=run: training_figures.training(run.curve, run.between, run.net, run.other_seeds),  # type: ignore[misc]
        )  # fmt: skip


def epochs_before(runs: Sequence[RunFacts]) -> dict[str, int]:
    """The epochs that each run's net was trained for before that run, in runs of the same net."""
    known = {run.name: run for run in runs}

    def before(run: RunFacts) -> int:
        parent = known.get(run.config.start.run or "")
        return before(parent) + len(parent.epochs) if parent and parent.net == run.net else 0

    return {run.name: before(run) for run in runs}


def first_layers(runs: Sequence[RunFacts]) -> Iterator[Drawing]:
    """The first layer of the runs at the start and at the end of each chain: in between it hardly changes."""
    names, starts = {run.name for run in runs}, {run.config.start.run for run in runs}
    for run in runs:
        if run.config.start.run in names and run.name in starts:
            continue
        weights = run.filters()
        if weights is None or weights.ndim != 4 or weights.shape[1] != 3:
            continue
        side = weights.shape[-1]
        alt = f"The {len(weights)} filters of {side} × {side} RGB pixels of conv1_1 in {run.name}, as small pictures."
        caption = f"{len(weights)} filters, {side} × {side}."
        yield Drawing(f"filters-{run.name}", "filters", run.name, caption, alt,
                      lambda weights=weights: training_figures.filters(weights))  # type: ignore[misc]  # fmt: skip


def agreement_frame(contents: Contents) -> pd.DataFrame:
    """A row for each filled row of Tables 3-6: columns net ("": several), S, ours, paper (top-1 errors), with
    several seeds also ours_each.

    The dense rows of Table 5 are also in Table 4 and count once.
    """
    parts = []
    for table in (3, 4, 5, 6):
        frame = contents.table(table).frame
        part = frame.reindex(columns=["net", "S"])
        part = part.assign(ours=frame[TOP1], paper=frame[f"{TOP1}_paper"])
        if contents.scores.seeds:
            part["ours_each"] = frame[f"{TOP1}_each"]
        part["views"] = pd.Series(views_of(table), index=part.index, dtype=object)
        if table == 5:
            part["S"] = paper.JITTER.label
        parts.append(part[part["ours"].notna() & part["paper"].notna()])
    whole = pd.concat(parts, ignore_index=True).drop_duplicates("views", ignore_index=True).drop(columns="views")
    return whole.assign(net=whole["net"].fillna(""), S=whole["S"].fillna("").map(_scale_label))


def methods_frame(contents: Contents) -> pd.DataFrame:
    """Tables 5 and 6 (post-submission): columns nets, method and the measures; only nets with a number of ours."""
    single, fused = contents.table(5).frame, contents.table(6).frame
    fused = fused[fused["group"] == "post-submission"].assign(net="D + E")
    frame = pd.concat([single, fused], ignore_index=True).rename(columns={"net": "nets"})
    return frame[frame.groupby("nets")[TOP1].transform("count") > 0]


def _scale_label(text: str) -> str:
    return paper.Scale.parse(text).label if text else ""


def _measured(frame: pd.DataFrame) -> list[str]:
    return [measure for measure in (TOP1, TOP5) if frame[measure].notna().any()]


def _alt(frame: pd.DataFrame, measure: str, names: tuple[str, ...]) -> str:
    """All numbers of a figure as text."""
    words = {"S": "S = ", "Q": "Q = "}
    parts = []
    for row in frame[frame[measure].notna()].to_dict("records"):
        name = ", ".join(f"{words.get(label, '')}{row[label]}" for label in names)
        theirs = row.get(f"{measure}_paper", math.nan)
        parts.append(f"{name}: {row[measure]:.1f} %" + (f" (the paper {theirs:.1f})" if np.isfinite(theirs) else ""))
    return "; ".join(parts) + "."


def rank_correlation(points: pd.DataFrame) -> float:
    """Spearman's rank correlation of our errors and the paper's (`agreement_frame`); NaN for few rows."""
    if len(points) < LEAST or min(points["ours"].nunique(), points["paper"].nunique()) < 3:
        return math.nan
    return float(stats.spearmanr(points["ours"], points["paper"]).statistic)


def _rank_caption(points: pd.DataFrame) -> str:
    text = "Top-1 errors: a point for each row of Tables 3–6 (each once)."
    rho = rank_correlation(points)
    return (
        text
        if math.isnan(rho)
        else f"{text} Rank correlation over {len(points)} rows (Spearman): {minus(f'{rho:.2f}')}."
    )


def _agreement_alt(points: pd.DataFrame) -> str:
    ends = [f"{points[name].min():.1f} to {points[name].max():.1f} %" for name in ("ours", "paper")]
    return f"Our top-1 error against the paper's for {len(points)} rows: ours {ends[0]}, the paper's {ends[1]}."


def _training_caption(run: RunFacts) -> str:
    start = run.config.start.run
    text = f"{len(run.epochs)} epoch{'s' * (len(run.epochs) > 1)}" + (f", started from {start}" if start else "")
    again = f" Thin: {len(run.other_seeds)} other seed{'s' * (len(run.other_seeds) > 1)}." if run.other_seeds else ""
    return f"{text}; errors on {run.measured_on} images.{again}"


def _training_alt(run: RunFacts) -> str:
    first, last = run.curve.iloc[0], run.curve.iloc[-1]
    text = f"Training of {run.name}, {len(run.epochs)} epochs: loss from {first['loss']:.2f} to {last['loss']:.2f}, "
    text += f"{run.measured_on} top-1 error from {number(first['top1_error'])} to {number(last['top1_error'])} %"
    fell = [f"after epoch {place:g} to {rate:.1g}" for place, rate in training_figures.drops(run.curve)]
    return text + (f"; learning rate dropped {', '.join(fell)}." if fell else ".")
