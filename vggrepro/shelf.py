"""Which posterior files a table may use: found, checked against their runs and data, scored once.

A file that must not stand for its run (other weights, other data) is named with the reason, never used.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
        shape = shape_of(path)
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
        """(crop, width) of most runs on this data set; of its preset if there are none."""
        if self._geometry is None:
            known = {run.name for run in paper.all_runs()}
            configs = [run.config() for run in existing(self.runs) if run.name in known]
            preset = recipe.load(self.dataset.preset)
            mine = self.dataset.fingerprint
            configs = [c for c in configs if c.get("dataset", {}).get("fingerprint", mine) == mine]
            shapes = [(int(config["crop"]), float(config["width"])) for config in configs]
            self._geometry = Counter(shapes or [(preset.crop, preset.width)]).most_common(1)[0][0]
        return self._geometry


def shape_of(path: Path) -> Shape:
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
    for run in tuned:  # the plain way to its start
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
    shown = ("crop", "width", "epochs", "deeper_epochs", "rescale_epochs")
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
    counts = " + ".join(str(facts.epochs) if facts.config else "?" for facts in everyone)
    if len(steps) > 1:
        scales = ", ".join(step.scale.label for step in steps)
        return [f"Trained for {counts} epochs at S = {scales} (the paper: {PAPER_EPOCHS} at the first)."]
    if run.is_rescaling:
        return [f"Trained for {counts} epochs at its scale."]
    return [f"Trained for {counts} epochs (the paper: {PAPER_EPOCHS})."]
