"""The paper's Tables 1-7 from posterior files alone: ours, the paper's number and the difference.

A table is a pandas DataFrame of raw floats (per cent; NaN where not run) with footnotes. Rows, their order
and their label cells are those of `tables/paper/table*.csv`. Each measure `X` there (`top1_val_error`, ...)
is three columns: `X` ours, `X_paper` as printed, `X_difference` = ours - paper. Tables 3-7 also have:

    images                        images scored
    note                          letters of the footnotes that the row carries, "a, c"
    data, classes, train_images   the data set, its classes, the images trained on
    preset, crop, width           recipe of the runs: real pixels, multiple of the paper's channels
    runs, epochs, seeds, weights  the runs averaged, and of each: epochs, seed, start of the weights' SHA-256
    commit                        of the code that evaluated
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from vggrepro import paper, posteriors, recipe
from vggrepro.errors import InputError
from vggrepro.paper import Run, View
from vggrepro.posteriors import Origin, Score
from vggrepro.runs import RunFolder, existing

if TYPE_CHECKING:
    from vggrepro.dataset import Dataset

SPLIT = "val"  # the paper's test set: the labels of ILSVRC's own test set are held by its server (Sect. 4)
PAPER_EPOCHS = 74  # Sect. 3.1: 370K iterations of 256 images
FLAGS = {"dense": "--dense", "multicrop": "--multicrop"}
ERRORS = ("top1_val_error", "top5_val_error")
PROVENANCE = ["data", "classes", "train_images", "preset", "crop", "width"]
PROVENANCE += ["runs", "epochs", "seeds", "weights", "commit"]

CAPTIONS = {
    1: "The nets, one a column, deeper to the right. conv3-64 is a convolution of 3 × 3 pixels with 64 "
    "channels; a ReLU follows every hidden layer.",
    2: "Number of parameters (weights and biases) in millions.",
    3: "One test scale: each image is seen at a single Q, by dense evaluation.",
    4: "Several test scales: posteriors averaged over three Q, by dense evaluation.",
    5: "Dense evaluation, multi-crop evaluation and the average of both. S in [256;512], Q = 256, 384, 512.",
    6: "Several nets fused: plain mean of their posteriors, each net at its own three Q (S - 32, S, S + 32; "
    "256, 384, 512 for [256;512]). In the submission, D/[256;512] had its FC layers alone fine-tuned.",
    7: "The best results beside those of other teams in the ILSVRC classification task.",
}
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
    it); `notes[0]` is footnote "a"; `remarks` hold for all rows; `crop` and `width` are those of most runs.
    """

    number: int
    caption: str
    frame: pd.DataFrame
    labels: tuple[str, ...]
    measures: tuple[str, ...]
    notes: tuple[str, ...]
    remarks: tuple[str, ...]
    crop: int
    width: float


@dataclass(frozen=True, slots=True)
class Facts:
    """What a run's folder says about it; `config` is None without config.json, `weights` without weights."""

    folder: RunFolder
    config: dict[str, Any] | None
    epochs: int
    weights: str | None


@dataclass(frozen=True, slots=True)
class File:
    """One posterior file that a row asks for: there or not, and why it must not be used."""

    view: View
    path: Path
    present: bool
    refused: str | None = None
    origin: Origin | None = None  # None for a file of another tool, without our metadata


@dataclass(frozen=True, slots=True)
class Shape:
    """Rows and classes of a posterior file; `foreign` if another tool wrote it, without an `Origin`."""

    rows: int
    classes: int
    foreign: bool


@dataclass(slots=True)
class Shelf:
    """The posteriors at hand: finds, checks and scores them; hashes and scores are computed once.

    Args:
        runs: the folder of run folders.
        dataset: the data set whose `val` split is scored.
        options: added to every suggested command, such as `--data D --runs R`.
    """

    runs: Path
    dataset: Dataset
    options: str = ""
    _facts: dict[Run, Facts] = field(default_factory=dict)
    _scores: dict[tuple[Path, ...], Score] = field(default_factory=dict)
    _geometry: tuple[int, float] | None = None

    def finished(self, run: Run) -> bool:
        return RunFolder(self.runs / run.name).finished

    def facts(self, run: Run) -> Facts:
        if run not in self._facts:
            folder = RunFolder(self.runs / run.name)
            config = folder.config() if folder.config_path.is_file() else None
            weights = folder.weights_hash() if folder.finished else None
            self._facts[run] = Facts(folder, config, len(folder.metrics()), weights)
        return self._facts[run]

    def file(self, view: View) -> File:
        """The file of a view and whether it may be used.

        Raises:
            InputError: it is damaged, or no posterior file.
        """
        path = posteriors.file_path(self.runs / view.run.name, SPLIT, view.method, view.q)
        if not path.is_file():
            return File(view, path, present=False)
        shape = _shape(path)
        origin = None if shape.foreign else posteriors.read_origin(path)
        facts = self.facts(view.run)
        reason = misplaced(facts, view.run) or (origin and refusal(origin, facts, SPLIT, view.method, view.q))
        if origin and not reason and origin.fingerprint != self.dataset.fingerprint:
            reason = "another data set"
        if not reason and shape.classes != len(self.dataset.classes):
            reason = f"{shape.classes} classes instead of {len(self.dataset.classes)}"
        if not reason and shape.rows != self.dataset.counts[SPLIT]:
            reason = f"{shape.rows} images instead of {self.dataset.counts[SPLIT]}"
        return File(view, path, True, reason or None, origin)

    def score(self, paths: Iterable[Path]) -> Score:
        """Errors of the files' plain mean (Sect. 4.4); the same files in another order are not read again."""
        key = tuple(sorted(paths))
        if key not in self._scores:
            name = str(key[0]) if len(key) == 1 else f"{key[0]} and {len(key) - 1} more"
            self._scores[key] = posteriors.score(posteriors.average(key), name)
        return self._scores[key]

    def geometry(self) -> tuple[int, float]:
        """(crop, width) of most runs; of the data set's preset if there are none."""
        if self._geometry is None:
            known = {run.name for run in paper.all_runs()}
            configs = [run.config() for run in existing(self.runs) if run.name in known]
            preset = recipe.load(self.dataset.preset)
            shapes = [(int(config["crop"]), float(config["width"])) for config in configs]
            self._geometry = Counter(shapes or [(preset.crop, preset.width)]).most_common(1)[0][0]
        return self._geometry


def _shape(path: Path) -> Shape:
    """A posterior file's size without reading its rows."""
    try:
        footer = pq.read_metadata(path)
        schema = footer.schema.to_arrow_schema()
        classes = schema.field("posterior").type.list_size
    except (pa.ArrowInvalid, OSError) as error:
        text = " ".join(str(error).split())
        raise InputError(f"{path}: damaged parquet file ({text}); delete it and evaluate again") from None
    except (KeyError, AttributeError):
        raise InputError(f"{path}: has no column 'posterior' of fixed-size lists") from None
    return Shape(footer.num_rows, classes, posteriors.METADATA_KEY not in (schema.metadata or {}))


def refusal(origin: Origin, facts: Facts, split: str, method: str, q: int) -> str | None:
    """Why a file made so must not stand for the run as it is now, or None."""
    if (origin.split, origin.method, origin.q) != (split, method, q):
        return f"{origin.split}, {origin.method}, Q = {origin.q} by its metadata"
    if facts.weights is not None and origin.weights != facts.weights:
        return "other weights"
    if facts.weights is None and facts.folder.checkpoint_path.exists():
        return "earlier weights, while the run is being trained again"
    if facts.config is not None and origin.q_pixels != paper.real_pixels(q, int(facts.config["crop"])):
        return "another crop size"
    return None


def misplaced(facts: Facts, run: Run) -> str | None:
    """Why the folder does not hold the run that its name says, or None."""
    if facts.config is None:
        return None
    scale = paper.Scale.parse(str(facts.config["scale"]))
    here = Run(str(facts.config["net"]), scale, bool(facts.config.get("fc_only", False)))
    return None if here == run else f"{here.name} by the run's config.json"


def training_commands(missing: Iterable[Run], finished: Iterable[Run] = ()) -> list[str]:
    """The fewest `vggrepro` commands that train these runs: `train` also trains what a run starts from."""
    done = set(finished)
    missing = list(dict.fromkeys(missing))
    tuned = [run for run in missing if run.fc_only]
    plain = [run for run in missing if not run.fc_only]
    for run in tuned:  # `finetune-scale` wants its start finished
        if run.parent and run.parent not in {*done, *plain}:
            plain.append(run.parent)
    on_the_way = {ancestor for run in plain for ancestor in paper.chain(run)[:-1]}
    commands = [f"train {run.net} --scale {run.scale}" for run in plain if run not in on_the_way]
    return commands + [f"finetune-scale {run.net} --scale {run.scale} --layers fc" for run in tuned]


def evaluating_commands(views: Iterable[View]) -> list[str]:
    """`evaluate` commands for these views, one for all runs that need the same methods."""
    methods: dict[Run, set[str]] = {}
    for view in views:
        methods.setdefault(view.run, set()).add(view.method)
    names: dict[str, list[str]] = {}
    for run in (run for run in paper.all_runs() if run in methods):
        flags = " ".join(flag for method, flag in FLAGS.items() if method in methods[run])
        names.setdefault(flags, []).append(run.name)
    return [f"evaluate {' '.join(runs)} {flags}" for flags, runs in names.items()]


def conditions(shelf: Shelf, files: Sequence[File]) -> list[str]:
    """How the runs and files of a row differ from the paper's, a sentence each, beyond the shared setting."""
    result = []
    for run in dict.fromkeys(file.view.run for file in files):
        result += _run_conditions(shelf, run)
    if any(file.origin is None for file in files):
        result.append("Posteriors of another tool, without metadata: weights and data cannot be checked.")
    if any(file.origin and not file.origin.flip for file in files):
        result.append("Evaluated without horizontal flips (the paper: with).")
    for file in files:
        if file.origin and file.view.method == "multicrop" and file.origin.grid != paper.GRID:
            grid = file.origin.grid
            result.append(f"Multi-crop on a {grid} × {grid} grid (the paper: {paper.GRID} × {paper.GRID}).")
    return list(dict.fromkeys(result))


def _run_conditions(shelf: Shelf, run: Run) -> list[str]:
    facts = shelf.facts(run)
    result = []
    if facts.weights is None:
        result.append(f"The weights of {run.name} are not here to check its posteriors against.")
    if facts.config is None:
        return [*result, f"{run.name} has no config.json: how it was trained is not known."]
    config = facts.config
    crop, width = shelf.geometry()
    if (int(config["crop"]), float(config["width"])) != (crop, width):
        result.append(f"Crop {config['crop']}, width {config['width']:g} (most runs: {crop}, {width:g}).")
    if origin := config.get("origin"):
        return [*result, f"{run.name}: {origin}."]  # what follows describes our own training
    preset = config.get("recipe", {}).get("preset", shelf.dataset.preset)
    if preset != shelf.dataset.preset:
        result.append(f"Trained by the preset '{preset}' (the data set's: '{shelf.dataset.preset}').")
    data = config.get("dataset", {})
    if data.get("fingerprint", shelf.dataset.fingerprint) != shelf.dataset.fingerprint:
        result.append(f"Trained on another data set ({data.get('name', 'unnamed')}).")
    start = Path((config.get("start") or {}).get("run", "random weights")).name
    expected = run.parent.name if run.parent else "random weights"
    if start != expected:
        result.append(f"{run.name} started from {start} (the paper: {expected}).")
    return result + _epochs(shelf, run, start)


def _epochs(shelf: Shelf, run: Run, start: str) -> list[str]:
    """The length of the training, scale after scale, where it may be shorter than the paper's.

    The paper trains for 74 epochs; how long it continues at another scale it does not say (Sect. 3.1).
    """
    steps = [run]
    while steps[0].is_rescaling and (parent := steps[0].parent) and (len(steps) > 1 or start == parent.name):
        steps.insert(0, parent)
    everyone = [shelf.facts(step) for step in steps]
    limit = (everyone[-1].config or {}).get("epochs", 0)
    if everyone[0].epochs == PAPER_EPOCHS and (len(steps) == 1 or limit >= PAPER_EPOCHS):
        return []
    counts = " + ".join(str(facts.epochs) if facts.config else "?" for facts in everyone)
    if len(steps) > 1:
        scales = ", ".join(step.scale.label for step in steps)
        return [f"Trained for {counts} epochs at S = {scales} (the paper: {PAPER_EPOCHS} at the first)."]
    if run.is_rescaling:
        return [f"Trained for {counts} epochs at its scale."]
    return [f"Trained for {counts} epochs (the paper: {PAPER_EPOCHS})."]


@dataclass(slots=True)
class Footnotes:
    """Collects what is said about a table's rows; equal sentences share a letter, unrun rows a command."""

    shelf: Shelf
    texts: dict[str, list[int]] = field(default_factory=dict)
    unrun: dict[frozenset[str], tuple[list[int], list[View]]] = field(default_factory=dict)
    refused: dict[tuple[Run, str], tuple[list[int], list[File]]] = field(default_factory=dict)

    def add(self, row: int, text: str) -> None:
        self.texts.setdefault(text, []).append(row)

    def refuse(self, row: int, file: File, reason: str) -> None:
        rows, files = self.refused.setdefault((file.view.run, reason), ([], []))
        rows.append(row)
        if file not in files:
            files.append(file)

    def miss(self, row: int, views: Sequence[View]) -> None:
        untrained = frozenset(view.run.net for view in views if not self.shelf.finished(view.run))
        rows, all_views = self.unrun.setdefault(untrained, ([], []))
        rows.append(row)
        all_views.extend(views)

    def _commands(self, views: Sequence[View]) -> str:
        runs = dict.fromkeys(view.run for view in views)
        finished = [run for run in paper.all_runs() if self.shelf.finished(run)]
        commands = training_commands([run for run in runs if run not in finished], finished)
        commands += evaluating_commands(views)
        options = f" {self.shelf.options}" if self.shelf.options else ""
        return ", ".join(f"`vggrepro {command}{options}`" for command in commands)

    def settle(self, filled: Sequence[int], rows: int) -> tuple[list[str], tuple[str, ...], tuple[str, ...]]:
        """Letters of each row, the lettered notes, and the remarks (what every filled row would carry)."""
        texts = dict(self.texts)
        for (_, reason), (places, files) in self.refused.items():
            names = ", ".join([str(files[0].path), *(file.path.name for file in files[1:])])
            renew = self._commands([file.view for file in files])
            texts[f"Not used: {names} ({reason}). Renew: {renew}."] = places
        for places, views in self.unrun.values():
            texts[f"Not run: {self._commands(views)}."] = places
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


def _measured(table: int, shelf: Shelf, needs: Sequence[tuple[View, ...]]) -> Table:
    """Table 3-7: the published rows, each with the views it averages (none: a quoted row)."""
    printed = paper.published(table)
    measures = tuple(name for name in printed[0] if name.endswith("_error"))
    labels = tuple(name for name in printed[0] if name not in measures)
    footnotes, filled, records = Footnotes(shelf), [], []
    for place, (line, views) in enumerate(zip(printed, needs, strict=True)):
        files = [shelf.file(view) for view in views]
        for file in files:
            if file.refused:
                footnotes.refuse(place, file, file.refused)
        if missing := [file.view for file in files if not file.present]:
            footnotes.miss(place, missing)
        usable = bool(files) and not missing and not any(file.refused for file in files)
        score = shelf.score(file.path for file in files) if usable else None
        if score:
            filled.append(place)
            for text in conditions(shelf, files):
                footnotes.add(place, text)
        ours = {ERRORS[0]: score.top1, ERRORS[1]: score.top5} if score else {}
        record: dict[str, Any] = {name: line[name] for name in labels}
        for name in measures:
            record |= _beside(name, ours.get(name), float(line[name]) if line[name] else None)
        record |= {"images": score.images if score else None, "note": ""}
        records.append(record | (_provenance(shelf, files) if score else dict.fromkeys(PROVENANCE)))
    frame = pd.DataFrame.from_records(records)
    frame = frame.astype(dict.fromkeys(("images", "classes", "train_images"), "Int64"))
    marks, notes, remarks = footnotes.settle(filled, len(records))
    frame["note"] = marks
    if len(shelf.dataset.classes) <= posteriors.TOP_K:
        remarks += (f"{len(shelf.dataset.classes)} classes have no top-{posteriors.TOP_K} error.",)
    if not all(needs):
        remarks += ("The rows of other teams are quoted from the paper.",)
    if "top5_test_error" in measures:
        remarks += (TEST_REMARK,)
    caption = f"{CAPTIONS[table]} {_setting(shelf)}"
    return Table(table, caption, frame, labels, measures, notes, remarks, *shelf.geometry())


def _beside(name: str, ours: float | None, printed: float | None) -> dict[str, float]:
    """A measure's three columns."""
    nan = float("nan")
    mine, theirs = nan if ours is None else ours, nan if printed is None else printed
    return {name: mine, f"{name}_paper": theirs, f"{name}_difference": mine - theirs}


def _provenance(shelf: Shelf, files: Sequence[File]) -> dict[str, Any]:
    """Where a row's numbers come from; the values of several runs are separated by blanks."""
    everyone = [shelf.facts(run) for run in dict.fromkeys(file.view.run for file in files)]
    configs = [facts.config or {} for facts in everyone]

    def values(items: Iterable[Any], each: bool = False) -> str:
        texts = ["?" if item is None else str(item) for item in items]
        return " ".join(texts if each else dict.fromkeys(texts))

    trained = {config.get("dataset", {}).get("train_images") for config in configs}
    return {
        "data": shelf.dataset.name,
        "classes": len(shelf.dataset.classes),
        "train_images": trained.pop() if len(trained) == 1 else None,
        "preset": values(config.get("recipe", {}).get("preset") for config in configs),
        "crop": values(config.get("crop") for config in configs),
        "width": values(config.get("width") for config in configs),
        "runs": values((facts.folder.name for facts in everyone), each=True),
        "epochs": values((facts.epochs for facts in everyone), each=True),
        "seeds": values((config.get("seed") for config in configs), each=True),
        "weights": values((facts.weights[:12] if facts.weights else None for facts in everyone), each=True),
        "commit": values(file.origin.commit if file.origin else None for file in files),
    }


def _setting(shelf: Shelf) -> str:
    """What the errors of a table were measured on: the caption's last sentence."""
    crop, width = shelf.geometry()
    count, classes = shelf.dataset.counts[SPLIT], len(shelf.dataset.classes)
    data = f"{count:,} validation images of {shelf.dataset.name} ({classes:,} classes)"
    return f"Errors in % of the {data}; crop {crop}, width {width:g}."


def table1(shelf: Shelf) -> Table:
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
    crop, width = shelf.geometry()
    classes = len(shelf.dataset.classes)
    remarks: tuple[str, ...] = ()
    if (crop, width, classes) != (paper.CROP, 1.0, 1000):
        remarks = (f"Here: input {crop} × {crop}, all widths times {width:g}, last layer FC-{classes}.",)
    return Table(1, CAPTIONS[1], pd.DataFrame(cells), tuple(nets), (), (), remarks, crop, width)


def table2(shelf: Shelf) -> Table:
    """Table 2: parameters of each net.

    Columns: `net`; `parameters_millions` counted from Table 1 at 1000 classes, with `_paper` and
    `_difference`; `parameters`, the same count exactly; `parameters_here`, with this data set's classes, crop
    and width.
    """
    crop, width = shelf.geometry()
    classes = len(shelf.dataset.classes)
    records = []
    for line in paper.published(2):
        count = paper.parameter_count(line["net"])
        record: dict[str, Any] = {"net": line["net"]}
        record |= _beside("parameters_millions", count / 1e6, float(line["parameters_millions"]))
        record["parameters"] = count
        record["parameters_here"] = paper.parameter_count(line["net"], classes, crop, width)
        records.append(record | {"note": ""})
    remarks: tuple[str, ...] = ()
    if (crop, width, classes) != (paper.CROP, 1.0, 1000):
        remarks = (f"Here: our nets, with {classes} classes, crop {crop}, width {width:g}.",)
    frame = pd.DataFrame.from_records(records)
    return Table(2, CAPTIONS[2], frame, ("net",), ("parameters_millions",), (), remarks, crop, width)


def table3(shelf: Shelf) -> Table:
    """Table 3: one test scale. Labels `net`, `S`, `Q`."""
    return _measured(3, shelf, [row.views for row in paper.rows(3)])


def table4(shelf: Shelf) -> Table:
    """Table 4: several test scales. Labels `net`, `S`, `Q`."""
    return _measured(4, shelf, [row.views for row in paper.rows(4)])


def table5(shelf: Shelf) -> Table:
    """Table 5: dense against multi-crop. Labels `net`, `method`."""
    return _measured(5, shelf, [row.views for row in paper.rows(5)])


def table6(shelf: Shelf) -> Table:
    """Table 6: fused nets. Labels `group`, `models` (net/S/Q; …), `method`; also the test error."""
    return _measured(6, shelf, [row.views for row in paper.rows(6)])


def table7(shelf: Shelf) -> Table:
    """Table 7: beside other teams, whose rows are quoted. Label `method`; also the test error."""
    needs: list[tuple[View, ...]] = []
    for line in paper.published(7):
        if line["method"] not in TABLE_7:
            needs.append(())
            continue
        table, wanted = TABLE_7[line["method"]]
        needs += [row.views for row in paper.rows(table) if wanted.items() <= row.labels.items()]
    return _measured(7, shelf, needs)


TABLES = {1: table1, 2: table2, 3: table3, 4: table4, 5: table5, 6: table6, 7: table7}


def tables(runs: Path, dataset: Dataset, numbers: Iterable[int] = range(2, 8), options: str = "") -> list[Table]:
    """The paper's tables from the posteriors in `runs`; `options` goes into every suggested command.

    Raises:
        InputError: a posterior file that is damaged or holds no distributions, or files of one row that
            differ in their images.
    """
    shelf = Shelf(runs, dataset, options)
    return [TABLES[number](shelf) for number in numbers]


def fuse_runs(folders: Sequence[RunFolder], methods: Sequence[str], split: str = SPLIT) -> pd.DataFrame:
    """Errors of each run's averaged posteriors and of the average of all (Sect. 4.4).

    A run's files are those of its `Scale.test_scales` by each of `methods`; every file has equal weight.

    Returns:
        columns `run`, `method`, `Q`, `images`, `top1_error`, `top5_error` (per cent, NaN if K <= 5); a row a
        run and, for two or more, a last row whose `run` is "A + B + …".

    Raises:
        InputError: no run, a missing or stale file, files of different data.
    """
    if not folders:
        raise InputError("fuse: no runs given; name at least one evaluated run")
    parts = [(folder, _files_of(folder, methods, split)) for folder in dict.fromkeys(folders)]
    everything = [path for _, paths in parts for path in paths]
    prints: dict[str, Path] = {}
    for path in everything:
        if not _shape(path).foreign:
            prints.setdefault(posteriors.read_origin(path).fingerprint, path)
    if len(prints) > 1:
        first, second = list(prints.values())[:2]
        raise InputError(f"{first} and {second} come from different data sets; evaluate both runs on one")
    records = [_fused(folder.name, paths, _test_scales(folder), methods) for folder, paths in parts]
    if len(parts) > 1:
        name = " + ".join(folder.name for folder, _ in parts)
        scales = {q for folder, _ in parts for q in _test_scales(folder)}
        records.append(_fused(name, everything, sorted(scales), methods))
    return pd.DataFrame.from_records(records)


def _test_scales(folder: RunFolder) -> tuple[int, ...]:
    return paper.Scale.parse(str(folder.config()["scale"])).test_scales


def _files_of(folder: RunFolder, methods: Sequence[str], split: str) -> list[Path]:
    """The run's posterior files, all there and none stale, else InputError with the command."""
    weights = folder.weights_hash() if folder.finished else None
    facts = Facts(folder, folder.config(), 0, weights)
    flags = " ".join(FLAGS.get(method, f"--{method}") for method in methods)
    command = f"vggrepro evaluate {folder.name} {flags}" + ("" if split == SPLIT else f" --split {split}")
    paths = []
    for method in methods:
        for q in _test_scales(folder):
            path = posteriors.file_path(folder.path, split, method, q)
            if not path.is_file():
                raise InputError(f"{path} does not exist; run '{command}'")
            if not _shape(path).foreign:
                reason = refusal(posteriors.read_origin(path), facts, split, method, q)
                if reason:
                    raise InputError(f"{path} is stale ({reason}); renew it with '{command}'")
            paths.append(path)
    return paths


def _fused(name: str, paths: Sequence[Path], qs: Iterable[int], methods: Sequence[str]) -> dict[str, Any]:
    score = posteriors.score(posteriors.average(paths), name)
    top5 = float("nan") if score.top5 is None else score.top5
    words = {"dense": "dense", "multicrop": "multi-crop"}
    method = " & ".join(words.get(method, method) for method in sorted(methods, reverse=True))
    record = {"run": name, "method": method, "Q": ", ".join(map(str, qs)), "images": score.images}
    return record | {"top1_error": score.top1, "top5_error": top5}
