"""Which posterior files a table may use: found, checked against their runs and data, scored once.

A file that must not stand for its run (other weights, other data) is named with the reason, never used.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from vggrepro import fusion, paper, posteriors, protocol, recipe
from vggrepro.dataset import DATASET_JSON, Dataset, Split, load
from vggrepro.errors import InputError
from vggrepro.paper import Run, View
from vggrepro.posteriors import Images, Origin, Score, shape_of
from vggrepro.runs import RunFolder, existing

SPLIT = "val"  # the paper's test set: the labels of ILSVRC's own test set are held by its server (Sect. 4)
METHODS = ("dense", "multicrop", "center")  # of tables and claims
PAPER_EPOCHS = 74  # Sect. 3.1: 370K iterations of 256 images


@dataclass(frozen=True, slots=True)
class Facts:
    """What a run's folder says about it.

    `config` is None without config.json, `epochs` without readable metrics, `weights` without weights; `damaged` says
    which file cannot be read.
    """

    folder: RunFolder
    config: dict[str, Any] | None
    epochs: int | None
    weights: str | None
    damaged: str = ""


@dataclass(frozen=True, slots=True)
class File:
    """One posterior file that a row asks for: there or not, and why it must not be used."""

    view: View
    path: Path
    present: bool
    refused: str | None = None
    origin: Origin | None = None  # None for a file of another tool, without our metadata


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
    _files: dict[View, File] = field(default_factory=dict)
    _ranks: dict[frozenset[Path], np.ndarray] = field(default_factory=dict)
    _bad: dict[Path, InputError] = field(default_factory=dict)
    _images: Images | None = None
    _geometry: tuple[int, float, int] | None = None

    def finished(self, run: Run) -> bool:
        return RunFolder(self.runs / run.name).finished

    def facts(self, run: Run) -> Facts:
        if run not in self._facts:
            folder = RunFolder(self.runs / run.name)
            weights = folder.weights_hash() if folder.finished else None
            config, epochs, damaged = None, None, ""
            try:
                config = folder.config() if folder.config_path.is_file() else None
                epochs = len(folder.metrics())
            except InputError as error:  # one run's damage must not take the other runs' rows down
                damaged = str(error)
            self._facts[run] = Facts(folder, config, epochs, weights, damaged)
        return self._facts[run]

    def file(self, view: View) -> File:
        """The file of a view and whether it may be used; a bad row is known once `gather` has read the file."""
        if view not in self._files:
            self._files[view] = self._looked_up(view)
        file = self._files[view]
        bad = self._bad.get(file.path)
        return dataclasses.replace(file, refused=_reason(file.path, bad)) if bad and not file.refused else file

    def _looked_up(self, view: View) -> File:
        path = protocol.file_path(self.runs / view.run.name, SPLIT, view.method, view.q)
        if not path.is_file():
            return File(view, path, present=False)
        try:
            shape = shape_of(path)
            origin = None if shape.foreign else posteriors.read_origin(path)
        except InputError as error:
            return File(view, path, True, _reason(path, error))
        facts = self.facts(view.run)
        reason = misplaced(facts, view.run) or (origin and refusal(origin, facts, SPLIT, view.method, view.q))
        if origin and not reason and origin.fingerprint != self.dataset.fingerprint:
            reason = "another data set"
        if not reason and shape.classes != len(self.dataset.classes):
            reason = f"{shape.classes} classes instead of {len(self.dataset.classes)}"
        if not reason and shape.rows != self.dataset.counts[SPLIT]:
            reason = f"{shape.rows} images instead of {self.dataset.counts[SPLIT]}"
        return File(view, path, True, reason or None, origin)

    @property
    def refused(self) -> list[File]:
        """The files asked for so far that must not be used."""
        return [file for view in self._files if (file := self.file(view)).refused]

    def gather_rows(self, rows: Iterable[Sequence[View]]) -> None:
        """`gather` for those rows whose files are all there and not refused."""
        files = [[self.file(view) for view in views] for views in rows if views]
        self.gather([file.path for file in row] for row in files if all(f.present and not f.refused for f in row))

    def gather(self, groups: Iterable[Sequence[Path]]) -> None:
        """Reads every file of the groups once and ranks the true classes under each group's mean posterior.

        A bad file is refused from then on (`file` says why), and the groups that need it are left out.

        Raises:
            InputError: an image without a label.
        """
        new = {key for group in groups if (key := frozenset(group)) not in self._ranks and not key & self._bad.keys()}
        if not new:
            return
        found = fusion.rank(new, self._split_images(frozenset[Path]().union(*new)))
        self._images = found.images
        self._ranks |= found.ranks
        self._bad |= found.bad

    @property
    def images(self) -> Images | None:
        """The split's images in the order of `ranks`; None before anything was read."""
        return self._images

    def _split_images(self, paths: Iterable[Path]) -> Images | None:
        """The split's images: as the data set has them; where it is not at hand, as a file of ours has them."""
        if self._images is None:
            self._images = split_images(self.dataset, SPLIT)
        for path in sorted(paths):
            with suppress(InputError):  # named as a bad file by `fusion.rank`
                if self._images is None and not shape_of(path).foreign:
                    self._images = posteriors.images_of(path)
        return self._images

    def ranks(self, paths: Iterable[Path]) -> np.ndarray:
        """(images,) int32: the rank of each image's true class under the files' plain mean (Sect. 4.4), 0 is best.

        The images are in one order for all files of this shelf, so that two results can be compared pair by pair.
        Any order of the paths gives the same numbers; what `gather` has read is not read again.

        Raises:
            InputError: a file is bad.
        """
        key = frozenset(paths)
        self.gather([sorted(key)])
        if bad := sorted(key & self._bad.keys()):
            raise self._bad[bad[0]]
        return self._ranks[key].astype(np.int32)

    def evidence(self) -> pa.Table | None:
        """Everything that was scored, image by image: what errors and paired tests can be recomputed from.

        Returns:
            `image` (key), `label`, and a column for each row of a table and side of a claim, named by its posterior
            files, as in `D-256-512/val-dense-q256 + D-256-512/val-dense-q384`: the rank of the image's true class
            under their mean, 0 is best. None before anything was scored.
        """
        if self._images is None or not self._ranks:
            return None
        names = {
            " + ".join(sorted(f"{path.parent.parent.name}/{path.stem}" for path in group)): ranks
            for group, ranks in self._ranks.items()
        }
        columns = {"image": self._images.keys, "label": self._images.labels}
        return pa.table(columns | {name: names[name] for name in sorted(names)})

    def score(self, paths: Iterable[Path]) -> Score:
        """Errors of the files' plain mean, from `ranks`."""
        return posteriors.score_of(self.ranks(paths), len(self.dataset.classes))

    def commands(self, views: Sequence[View]) -> str:
        """What makes these views, in Markdown: `vggrepro train …`, then `vggrepro evaluate …`.

        Without training images, `vggrepro import …` stands for the training.
        """
        finished = [run for run in paper.all_runs() if self.finished(run)]
        needed = {view.run for view in views}
        missing = [run for run in paper.all_runs() if run in needed and run not in finished]
        options = f" {self.options}" if self.options else ""
        words = [f"{command}{options}" for command in training_commands(missing, finished)]
        if not self.dataset.trainable:
            words = [f"import {run.net} FILE --as {run.name}" for run in missing]
        words += [f"{command}{options}" for command in evaluating_commands(views)]
        return ", then ".join(f"`vggrepro {word}`" for word in words)

    def geometry(self) -> tuple[int, float, int]:
        """(crop, width, stride) of most runs on this data set; of its preset if there are none."""
        if self._geometry is None:
            facts = [self.facts(run) for run in paper.all_runs() if (self.runs / run.name).is_dir()]
            configs = [fact.config for fact in facts if fact.config]
            preset = recipe.load(self.dataset.preset)
            mine = self.dataset.fingerprint
            configs = [c for c in configs if c.get("dataset", {}).get("fingerprint", mine) == mine]
            shapes = [(int(config["crop"]), float(config["width"]), int(config["stride"])) for config in configs]
            self._geometry = Counter(shapes or [(preset.crop, preset.width, preset.stride)]).most_common(1)[0][0]
        return self._geometry


def _reason(path: Path, error: InputError) -> str:
    """What is wrong with a file, for a footnote that names it and says how to renew it."""
    return str(error).removeprefix(str(path)).lstrip(": ").removesuffix(f"; {posteriors.RENEW}")


def foreign_data(runs: Path, dataset: Dataset) -> str | None:
    """The name of another data set that all runs of a folder were trained on, or None."""
    names: list[str] = []
    for run in existing(runs):
        with suppress(InputError):
            trained = run.config().get("dataset") or {}
            if trained.get("fingerprint", dataset.fingerprint) == dataset.fingerprint:
                return None
            names.append(str(trained.get("name", "another data set")))
    return names[0] if names else None


def split_images(dataset: Dataset, split: str) -> Images | None:
    """Keys and labels of a split in its order; None where the prepared images are not, or no longer, at hand.

    Raises:
        InputError: the data set is damaged.
    """
    if not (dataset.folder / DATASET_JSON).is_file() or load(dataset.folder).fingerprint != dataset.fingerprint:
        return None
    if not any(dataset.folder.glob(f"{split}-*.arrow")):
        return None
    images = Split(dataset, split)
    source = f"the split '{split}' of {dataset.folder}"
    return Images(source, pa.array(images.keys(0, len(images)), pa.string()), images.labels, len(dataset.classes))


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
    if facts.config is not None and origin.input and origin.input != posteriors.input_of(facts.config):
        return "another net input"
    if facts.config is not None and origin.resample != recipe.recorded(facts.config)["resample"]:
        return "another resampling"
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
    for run in tuned:  # the plain way to its start
        if run.parent and run.parent not in {*done, *plain}:
            plain.append(run.parent)
    on_the_way = {ancestor for run in plain for ancestor in paper.chain(run)[:-1]}
    commands = [f"train {run.net} --scale {run.scale}" for run in plain if run not in on_the_way]
    return commands + [f"finetune-scale {run.net} --scale {run.scale} --layers fc" for run in tuned]


def flags(methods: Iterable[str]) -> str:
    """The options of `evaluate` and `fuse` that ask for these methods."""
    return " ".join(f"--{method}" for method in methods)


def evaluating_commands(views: Iterable[View]) -> list[str]:
    """`evaluate` commands for these views, one for all runs that need the same methods."""
    methods: dict[Run, set[str]] = {}
    for view in views:
        methods.setdefault(view.run, set()).add(view.method)
    names: dict[str, list[str]] = {}
    for run in (run for run in paper.all_runs() if run in methods):
        names.setdefault(flags(method for method in METHODS if method in methods[run]), []).append(run.name)
    return [f"evaluate {' '.join(runs)} {flags}" for flags, runs in names.items()]


def conditions(shelf: Shelf, files: Sequence[File]) -> list[str]:
    """How the runs and files of a row differ from the paper's, a sentence each, beyond the shared setting."""
    result = []
    for run in dict.fromkeys(file.view.run for file in files):
        result += _run_conditions(shelf, run)
    if any(file.origin is None for file in files):
        result.append("Posteriors of another tool, without metadata: weights and data cannot be checked.")
    if any(file.origin and not file.origin.flip and file.view.method != "center" for file in files):
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
    if facts.damaged:
        result.append(f"{facts.damaged}.")
    if facts.config is None:
        why = "its config.json is damaged" if facts.damaged else "it has no config.json"
        return [*result, f"How {run.name} was trained is not known: {why}."]
    config = facts.config
    crop, width, stride = shelf.geometry()
    if (int(config["crop"]), float(config["width"]), int(config["stride"])) != (crop, width, stride):
        own = f"Crop {config['crop']}, width {config['width']:g}, stride {config['stride']}"
        result.append(f"{own} (most runs: {crop}, {width:g}, {stride}).")
    if origin := config.get("origin"):
        return [*result, f"{run.name}: {origin}."]  # what follows describes our own training
    preset = config.get("recipe", {}).get("preset", shelf.dataset.preset)
    if preset != shelf.dataset.preset:
        result.append(f"Trained by the preset '{preset}' (the data set's: '{shelf.dataset.preset}').")
    data = config.get("dataset", {})
    if data.get("fingerprint", shelf.dataset.fingerprint) != shelf.dataset.fingerprint:
        result.append(f"Trained on another data set ({data.get('name', 'unnamed')}).")
    result += _recipe_conditions(run, config)
    weights = (config.get("start") or {}).get("weights")
    parent = shelf.facts(run.parent).weights if run.parent else None
    if weights and parent and weights != parent and run.parent:
        result.append(f"{run.name} started from an earlier {run.parent.name}, which was trained again since.")
    start = Path((config.get("start") or {}).get("run", "random weights")).name
    expected = run.parent.name if run.parent else "random weights"
    if start != expected:
        result.append(f"{run.name} started from {start} (the paper: {expected}).")
    return result + _epochs(shelf, run, start)


def _recipe_conditions(run: Run, config: dict[str, Any]) -> list[str]:
    """Values of the run's recipe that are not its preset's, beyond those that are shown elsewhere."""
    used = config.get("recipe", {})
    if used.get("preset") not in recipe.PRESETS:
        return []
    preset = recipe.load(used["preset"]).as_dict()
    shown = ("crop", "stride", "width", "epochs", "deeper_epochs", "rescale_epochs")
    other = [
        f"{name} {used[name]}" for name in preset if name not in shown and used.get(name, preset[name]) != preset[name]
    ]
    return [f"{run.name}: {', '.join(other)} (not the preset's)."] if other else []


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
    known = [facts.epochs if facts.config else None for facts in everyone]
    counts = " + ".join("?" if epochs is None else str(epochs) for epochs in known)
    if len(steps) > 1:
        scales = ", ".join(step.scale.label for step in steps)
        return [f"Trained for {counts} epochs at S = {scales} (the paper: {PAPER_EPOCHS} at the first)."]
    if run.is_rescaling:
        return [f"Trained for {counts} epochs at its scale."]
    return [f"Trained for {counts} epochs (the paper: {PAPER_EPOCHS})."]
