"""The paper's Tables 1-7 from posterior files alone: ours, the paper's number and the difference.

A table is a pandas DataFrame of raw floats (per cent; NaN where not run) with footnotes. Rows, their order
and their label cells are those of `tables/paper/table*.csv`. Each measure `X` there (`top1_val_error`, ...)
gives three columns: `X` is ours, `X_paper` as printed, `X_difference` = ours - paper. An error also has the ends of its
95 % interval over images (Wilson), `X_low` and `X_high`. `layout.paper_layout` groups the columns and rows as the paper
does. Tables 3-7 also have:

    images                        images scored
    note                          letters of the footnotes that the row carries, "a, c"
    data, classes, train_images   the data set, its classes, the images trained on
    preset, crop, width           recipe of the runs: real pixels, multiple of the paper's channels
    runs, epochs, seeds, weights  the runs averaged, and of each: epochs, seed, start of the weights' SHA-256
    commit                        of the code that evaluated

With several seeds `X` is the mean, and there are also `X_sd` (the standard deviation between seeds), `X_each` (every
seed's), in place of `X_low` and `X_high`, and `n` (the seeds that have the row). `runs` to `commit` are of the first.
"""

from __future__ import annotations

import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from vggrepro import paper
from vggrepro.paper import TOP_K, Geometry, View
from vggrepro.posteriors.protocol import SPLIT
from vggrepro.results import intervals
from vggrepro.results.columns import ERRORS, NAN
from vggrepro.results.conditions import conditions, shared
from vggrepro.results.gaps import not_run, not_used
from vggrepro.results.scores import File, Scores

PROVENANCE = ["data", "classes", "train_images", "preset", "crop", "stride", "width", "min_channels"]
PROVENANCE += ["runs", "epochs", "seeds", "weights", "commit"]

CAPTIONS = {
    1: "A column for each net, deeper to the right; layers that the net on the left does not have are bold. conv3-64 "
    "is a convolution of 3 × 3 pixels with 64 channels; a ReLU follows every hidden layer.",
    2: "Number of parameters (weights and biases) in millions.",
    3: "One test scale: each image is seen at a single Q, by dense evaluation.",
    4: "Several test scales: posteriors averaged over three Q, by dense evaluation.",
    5: "Dense evaluation, multi-crop evaluation and the average of both. S in [256;512], Q = 256, 384, 512.",
    6: "Several nets fused: plain mean of their posteriors, each net at its own three Q (S - 32, S, S + 32; "
    "256, 384, 512 for [256;512]). In the submission, D/[256;512] had its FC layers alone fine-tuned.",
    7: 'The best results beside those of other teams in the ILSVRC classification task; "VGG" is the paper\'s method. '
    "All without outside training data.",
}
SEEDS_CAPTION = (
    "Our errors are means ± standard deviations over n seeds. Each net is trained once with each seed; an ensemble is "
    "made of nets of one seed."
)
GOOGLENET_REMARK = "The paper prints GoogLeNet's 7.9 and 6.7 once, across both columns of top-5 errors."
TEST_REMARK = "The test labels are held by the ILSVRC server: there is no test error of ours."

BOTH = "multi-crop & dense"
# Table 7's rows that are ours: where the same posteriors stand in Tables 5 and 6.
TABLE_7 = {
    "VGG (2 nets, multi-crop & dense eval.)": (6, {"group": "post-submission", "method": BOTH}),
    "VGG (1 net, multi-crop & dense eval.)": (5, {"net": "E", "method": BOTH}),
    "VGG (ILSVRC submission, 7 nets, dense eval.)": (6, {"group": "ILSVRC submission"}),
}


@dataclass(frozen=True, slots=True)
class Table:
    """A reproduced table.

    `labels` and `measures` name columns of `frame` (a measure `X` has `X_paper` and `X_difference` beside
    it); `notes[0]` is footnote "a"; `remarks` hold for all rows; `geometry` is that of most runs, `training` says how
    the training of all runs differs from the paper's (`conditions.shared`).
    `layers`: the cells are layers and a column is a net, as in Table 1. `sideways`: the paper prints the rows as
    columns, as in Table 2.
    """

    number: int
    caption: str
    frame: pd.DataFrame
    labels: tuple[str, ...]
    measures: tuple[str, ...]
    notes: tuple[str, ...]
    remarks: tuple[str, ...]
    geometry: Geometry
    training: tuple[str, ...] = ()
    layers: bool = False
    sideways: bool = False

    @property
    def precisions(self) -> bool:
        """Whether the numbers are precisions and recalls of Appendix B, larger ones better, and not errors."""
        return self.number > 10

    @property
    def measured(self) -> bool:
        """Whether the numbers are errors measured on images, as in Tables 3-7."""
        return not (self.layers or self.sideways)


@dataclass(slots=True)
class Footnotes:
    """Collects the sentences about a table's rows. Rows with the same sentence share its letter."""

    scores: Scores
    texts: dict[str, list[int]] = field(default_factory=dict)  # the rows of each sentence
    unfilled: dict[int, list[File]] = field(default_factory=dict)  # the files that each row without numbers asked for

    def add(self, row: int, text: str) -> None:
        self.texts.setdefault(text, []).append(row)

    def _gaps(self) -> dict[str, list[int]]:
        """Sentences on files that are refused or missing, and their rows.

        Rows for which the same nets must still be trained share one sentence on what to run.
        """
        asked = [file for files in self.unfilled.values() for file in files]
        result = {}
        for text, refused in not_used(asked, self.scores.commands).items():
            paths = {file.path for file in refused}
            result[text] = [row for row, files in self.unfilled.items() if paths & {file.path for file in files}]
        for rows in self._missing():
            views = [view for missing in rows.values() for view in missing]
            result[not_run(views, self.scores.commands)] = list(rows)
        return result

    def _missing(self) -> list[dict[int, list[View]]]:
        """The missing posteriors of each row; rows are grouped by the nets that must still be trained."""
        grouped: dict[frozenset[str], dict[int, list[View]]] = {}
        for row, files in self.unfilled.items():
            if missing := [file.view for file in files if not file.present]:
                untrained = frozenset(view.run.net for view in missing if not self.scores.finished(view.run))
                grouped.setdefault(untrained, {})[row] = missing
        return list(grouped.values())

    def settle(self, filled: Sequence[int], rows: int) -> tuple[list[str], tuple[str, ...], tuple[str, ...]]:
        """The letters of each row, the sentences with letters, and the remarks, which hold for every filled row."""
        texts = self.texts | self._gaps()
        remarks = [text for text, places in texts.items() if len(filled) > 1 and set(places) == set(filled)]
        lettered = sorted((text for text in texts if text not in remarks), key=lambda text: min(texts[text]))
        marks: list[list[str]] = [[] for _ in range(rows)]
        for place, text in enumerate(lettered):
            for row in dict.fromkeys(texts[text]):
                marks[row].append(letter(place))
        return [", ".join(letters) for letters in marks], tuple(lettered), tuple(remarks)


def letter(place: int) -> str:
    """Mark of footnote `place`: a … z, aa, ab, …"""
    alphabet = string.ascii_lowercase
    return alphabet[place] if place < 26 else alphabet[place // 26 - 1] + alphabet[place % 26]


def _measured(table: int, scores: Scores) -> Table:
    """Table 3-7: the published rows beside what their posteriors give here."""
    printed, needs = paper.published(table), views_of(table)
    measures = tuple(name for name in printed[0] if name.endswith("_error"))
    labels = tuple(name for name in printed[0] if name not in measures)
    scores.rank_rows(needs)
    footnotes, filled, records = Footnotes(scores), [], []
    for place, (line, views) in enumerate(zip(printed, needs, strict=True)):
        seeds = scores.having(views)
        if not seeds:
            footnotes.unfilled[place] = [scores.file(view) for view in views]
        ours = errors_over(seeds, several=bool(scores.seeds)) if seeds else {}
        record: dict[str, Any] = {name: line[name] for name in labels}
        for name in measures:
            record |= _with_paper(name, ours.get(name), float(line[name]) if line[name] else None)
            if name in ERRORS:
                ends = ("low", "high", "sd", "each") if scores.seeds else ("low", "high")
                record |= {f"{name}_{end}": ours.get(f"{name}_{end}", NAN) for end in ends}
        record |= {"images": None, "note": "", **dict.fromkeys(PROVENANCE)}
        record |= {"n": len(seeds)} if scores.seeds else {}
        if seeds:
            seed, files = seeds[0]
            record |= {"images": len(seed.ranks(file.path for file in files)), **_provenance(seed, files)}
            filled.append(place)
            for text in conditions(scores, seeds):
                footnotes.add(place, text)
        records.append(record)
    frame = pd.DataFrame.from_records(records)
    frame = frame.astype(dict.fromkeys(("images", "classes", "train_images"), "Int64"))
    marks, notes, remarks = footnotes.settle(filled, len(records))
    frame["note"] = marks
    if filled and scores.dataset.subset:
        remarks += (f"Only a subset of the data: {scores.dataset.subset.rstrip('.')}.",)
    if len(scores.dataset.classes) <= TOP_K:
        remarks += (f"{len(scores.dataset.classes)} classes have no top-{TOP_K} error.",)
    if not all(needs):
        remarks += ("The rows of other teams are quoted from the paper.",)
    if table == 7:
        remarks += (GOOGLENET_REMARK,)
    if "top5_test_error" in measures:
        remarks += (TEST_REMARK,)
    caption = f"{CAPTIONS[table]} {setting(scores)}"
    return Table(table, caption, frame, labels, measures, notes, remarks, scores.geometry, shared(scores))


def errors_over(seeds: Sequence[tuple[Scores, Sequence[File]]], *, several: bool) -> dict[str, Any]:
    """The errors of a row: `errors_of`, or, with several seeds, means, with `_sd` and `_each` in place of intervals.

    `seeds`: those that have the row, one or more (`Scores.having`).
    """
    made = [errors_of(seed.ranks(file.path for file in files), len(seed.dataset.classes)) for seed, files in seeds]
    if not several:
        return made[0]
    result: dict[str, Any] = {}
    for name in ERRORS:
        each = [errors[name] for errors in made]
        spread = float(np.std(each, ddof=1)) if len(each) > 1 else NAN
        result |= {name: float(np.mean(each)), f"{name}_sd": spread}
        result[f"{name}_each"] = " ".join(f"{value:.4f}" for value in each)
    return result


def errors_of(ranks: np.ndarray, classes: int) -> dict[str, float]:
    """Both errors in per cent and the ends of their 95 % intervals, from the ranks (images,) of the true classes.

    Keys `top1_val_error`, `top1_val_error_low`, `top1_val_error_high`, and so for top-5: NaN for 5 classes or fewer.
    """
    result: dict[str, float] = {}
    for name, best in ERRORS.items():
        wrong = int(np.count_nonzero(ranks >= best))
        interval = intervals.wilson(wrong, len(ranks))
        values = (100 * wrong / len(ranks), interval.low, interval.high) if classes > best else (NAN, NAN, NAN)
        result |= dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))
    return result


def _with_paper(name: str, ours: float | None, printed: float | None) -> dict[str, float]:
    """A measure's three columns."""
    mine, theirs = NAN if ours is None else ours, NAN if printed is None else printed
    return {name: mine, f"{name}_paper": theirs, f"{name}_difference": mine - theirs}


def _provenance(scores: Scores, files: Sequence[File]) -> dict[str, Any]:
    """The columns on where a row's numbers come from; values of several runs are separated by blanks."""
    everyone = [scores.facts(run) for run in dict.fromkeys(file.view.run for file in files)]
    configs = [facts.config for facts in everyone]

    def values(items: Iterable[Any], each: bool = False) -> str:
        texts = ["?" if item is None else str(item) for item in items]
        return " ".join(texts if each else dict.fromkeys(texts))

    trained = {config and config.dataset.train_images for config in configs}
    return {
        "data": scores.dataset.name,
        "classes": len(scores.dataset.classes),
        "train_images": trained.pop() if len(trained) == 1 else None,
        "preset": values(config and config.recipe.preset for config in configs),
        "crop": values(config and config.crop for config in configs),
        "stride": values(config and config.stride for config in configs),
        "width": values(config and config.width for config in configs),
        "min_channels": values(config and config.min_channels for config in configs),
        "runs": values((facts.folder.name for facts in everyone), each=True),
        "epochs": values((facts.epochs for facts in everyone), each=True),
        "seeds": values((config and config.seed for config in configs), each=True),
        "weights": values((facts.weights[:12] if facts.weights else None for facts in everyone), each=True),
        "commit": values(file.origin.commit if file.origin else None for file in files),
    }


def setting(scores: Scores) -> str:
    """What the errors of a table were measured on, and over how many seeds: the end of its caption."""
    geometry = scores.geometry
    count, classes = scores.dataset.counts[SPLIT], len(scores.dataset.classes)
    data = f"{count:,} validation images of {scores.dataset.name} ({classes:,} classes)"
    strides = f", stride {geometry.stride}" if geometry.stride != paper.STRIDE else ""
    text = f"Errors in % of the {data}; crop {geometry.crop}{strides}, {geometry.widths}."
    return f"{text} {SEEDS_CAPTION}" if scores.seeds else text


def table1(scores: Scores) -> Table:
    """Table 1: the configurations. Columns: the nets A … E; rows: layers from the input to the soft-max."""
    nets = [net for net in paper.NETS if net != "B-5x5"]  # that one is of Sect. 4.1
    cells: dict[str, list[str]] = {net: [] for net in nets}
    for block in range(5):
        depth = max(len(paper.NETS[net][block]) for net in nets)
        for net in nets:
            names = [item if item == "LRN" else f"conv{item}" for item in paper.NETS[net][block]]
            cells[net] += names + [""] * (depth - len(names)) + ["maxpool"]
    for net in nets:
        weighted = sum(cell.startswith("conv") for cell in cells[net]) + 3
        head = [f"{weighted} weight layers", f"input {paper.CROP} × {paper.CROP} RGB"]
        tail = [f"FC-{paper.FC_WIDTH}", f"FC-{paper.FC_WIDTH}", "FC-1000", "soft-max"]
        cells[net] = head + cells[net] + tail
    geometry = scores.geometry
    classes = len(scores.dataset.classes)
    remarks: tuple[str, ...] = ()
    if (geometry.crop, geometry.width, classes) != (paper.CROP, 1.0, 1000):
        missing = 5 - sum(paper.poolings(geometry.stride))
        fewer = f", no max-pooling after the first {missing} blocks" if missing else ""
        widths = geometry.widths.removeprefix("width ")
        sizes = f"input {geometry.crop} × {geometry.crop}{fewer}, all widths times {widths}"
        remarks = (f"Here: {sizes}, last layer FC-{classes}.",)
    return Table(
        1, CAPTIONS[1], pd.DataFrame(cells), tuple(nets), (), (), remarks, scores.geometry, shared(scores), layers=True
    )


def table2(scores: Scores) -> Table:
    """Table 2: parameters of each net.

    Columns: `net`; `parameters_millions` counted from Table 1 at 1000 classes, with `_paper` and
    `_difference`; `parameters`, the same count exactly; `parameters_here`, with this data set's classes, crop
    and width.
    """
    geometry, classes = scores.geometry, len(scores.dataset.classes)
    records = []
    for line in paper.published(2):
        count = paper.Architecture(line["net"]).parameters
        record: dict[str, Any] = {"net": line["net"]}
        record |= _with_paper("parameters_millions", count / 1e6, float(line["parameters_millions"]))
        record["parameters"] = count
        record["parameters_here"] = scores.architecture(line["net"]).parameters
        records.append(record | {"note": ""})
    remarks: tuple[str, ...] = ()
    if (geometry.crop, geometry.width, classes) != (paper.CROP, 1.0, 1000):
        remarks = (f"Here: our nets, with {classes} classes, crop {geometry.crop}, {geometry.widths}.",)
    frame = pd.DataFrame.from_records(records)
    measures = ("parameters_millions",)
    return Table(2, CAPTIONS[2], frame, ("net",), measures, (), remarks, scores.geometry, shared(scores), sideways=True)


def views_of(number: int) -> list[tuple[View, ...]]:
    """The posteriors that each row of Table `number` averages, none for a quoted row; Tables 1 and 2 need none."""
    if number < 3:
        return []
    if number < 7:
        return [row.views for row in paper.rows(number)]
    result: list[tuple[View, ...]] = []
    for line in paper.published(7):
        if line["method"] not in TABLE_7:
            result.append(())
            continue
        table, wanted = TABLE_7[line["method"]]
        result += [row.views for row in paper.rows(table) if wanted.items() <= row.labels.items()]
    return result


def table3(scores: Scores) -> Table:
    """Table 3: one test scale. Labels `net`, `S`, `Q`."""
    return _measured(3, scores)


def table4(scores: Scores) -> Table:
    """Table 4: several test scales. Labels `net`, `S`, `Q`."""
    return _measured(4, scores)


def table5(scores: Scores) -> Table:
    """Table 5: dense against multi-crop. Labels `net`, `method`."""
    return _measured(5, scores)


def table6(scores: Scores) -> Table:
    """Table 6: fused nets. Labels `group`, `models` (net/S/Q; …), `method`; also the test error."""
    return _measured(6, scores)


def table7(scores: Scores) -> Table:
    """Table 7: beside other teams, whose rows are quoted. Label `method`; also the test error."""
    return _measured(7, scores)


TABLES = {1: table1, 2: table2, 3: table3, 4: table4, 5: table5, 6: table6, 7: table7}


def tables_of(scores: Scores, numbers: Sequence[int] = range(1, 8)) -> list[Table]:
    """The paper's tables from the posteriors of `scores`, each file read once.

    Raises:
        InputError: no images or no labels to score. Files that are damaged or differ in their images are named in
            footnotes.
    """
    scores.rank_rows([row for number in numbers for row in views_of(number)])
    return [TABLES[number](scores) for number in numbers]
