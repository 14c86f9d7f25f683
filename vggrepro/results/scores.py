"""Finds the posterior files that tables use, checks them against their runs and data, and scores each once.

A file that must not be used for its run (other weights, other data) is named with the reason.
"""

from __future__ import annotations

import copy
import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from vggrepro import paper, recipe
from vggrepro.data.dataset import DATASET_JSON, Dataset, Split, load
from vggrepro.errors import InputError
from vggrepro.paper import Architecture, Geometry, Run, View
from vggrepro.posteriors import files as posterior_files
from vggrepro.posteriors import means, protocol
from vggrepro.posteriors.files import Images, Origin, shape_of
from vggrepro.posteriors.protocol import SPLIT
from vggrepro.posteriors.ranks import Score, score_of
from vggrepro.results import freshness
from vggrepro.results.freshness import Facts
from vggrepro.runs.folder import RunFolder, existing, seed_folders
from vggrepro.system import advice


@dataclass(frozen=True, slots=True)
class File:
    """One posterior file that a row needs: whether it is there, and why it must not be used."""

    view: View
    path: Path
    present: bool
    refused: str | None = None
    origin: Origin | None = None  # None for a file of another tool, without our metadata


class Scores:
    """The posteriors of a folder of runs: finds, checks and scores them. Hashes and scores are computed once.

    Args:
        runs: the folder of run folders.
        dataset: the data set whose `val` split is scored.
        seeds: the same runs trained with other seeds, which tables and claims count in.
    """

    def __init__(self, runs: Path, dataset: Dataset, seeds: Sequence[Scores] = ()) -> None:
        self.runs, self.dataset, self.seeds = runs, dataset, seeds
        self.name = runs.absolute().name  # tells this seed from the others
        self._facts: dict[Run, Facts] = {}
        self._files: dict[View, File] = {}
        self._ranks: dict[frozenset[Path], np.ndarray] = {}
        self._bad: dict[Path, InputError] = {}
        self._images: Images | None = None
        self._geometry: Geometry | None = None

    def finished(self, run: Run) -> bool:
        return RunFolder(self.runs / run.name).trained

    def facts(self, run: Run) -> Facts:
        if run not in self._facts:
            self._facts[run] = freshness.facts_of(RunFolder(self.runs / run.name))
        return self._facts[run]

    def file(self, view: View) -> File:
        """The file of a view, and whether it may be used. `rank_groups` reads the file and may find a bad row in it."""
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
            shape, origin, reason = freshness.checked(path, self.facts(view.run), view, SPLIT, self.dataset)
        except InputError as error:
            return File(view, path, True, _reason(path, error))
        return File(view, path, True, reason or freshness.misfit(shape, self.dataset, SPLIT), origin)

    @property
    def refused(self) -> list[File]:
        """The files asked for so far that must not be used."""
        return [file for view in self._files if (file := self.file(view)).refused]

    def usable(self, views: Sequence[View]) -> list[File]:
        """The files of a row; empty if one is missing or must not be used."""
        files = [self.file(view) for view in views]
        return files if all(file.present and not file.refused for file in files) else []

    def having(self, views: Sequence[View]) -> list[tuple[Scores, list[File]]]:
        """The seeds, this one first, that have all files of a row, each with these files."""
        return [(seed, files) for seed in (self, *self.seeds) if (files := seed.usable(views))]

    @property
    def alone(self) -> Scores:
        """This seed without the others; what was read is shared."""
        alone = copy.copy(self)
        alone.seeds = ()
        return alone

    def rank_rows(self, rows: Iterable[Sequence[View]]) -> None:
        """`rank_groups` for those rows whose files are all there and not refused, of each seed."""
        rows = list(rows)
        self.rank_groups([file.path for file in files] for views in rows if (files := self.usable(views)))
        for seed in self.seeds:
            seed._images = seed._images or self._images  # one order for all
            seed.rank_rows(rows)

    def rank_groups(self, groups: Iterable[Sequence[Path]]) -> None:
        """Reads every file of the groups once and ranks the true classes under each group's mean posterior.

        A bad file is refused from then on (`file` says why), and the groups that need it are left out.

        Raises:
            InputError: an image without a label.
        """
        new = {key for group in groups if (key := frozenset(group)) not in self._ranks and not key & self._bad.keys()}
        if not new:
            return
        found = means.rank_classes(new, self._split_images(frozenset[Path]().union(*new)))
        self._images = found.images
        self._ranks |= found.ranks
        self._bad |= found.bad

    @property
    def images(self) -> Images | None:
        """The split's images in the order of `ranks`; None before anything was read."""
        return self._images

    def _split_images(self, paths: Iterable[Path]) -> Images | None:
        """The split's images as the data set has them or, without its images, as a file of ours has them."""
        if self._images is None:
            self._images = split_images(self.dataset, SPLIT)
        for path in sorted(paths):
            with suppress(InputError):  # named as a bad file by `means.rank_classes`
                if self._images is None and not shape_of(path).foreign:
                    self._images = posterior_files.images_of(path)
        return self._images

    def ranks(self, paths: Iterable[Path]) -> np.ndarray:
        """(images,) int32: the rank of each image's true class under the files' plain mean (Sect. 4.4), 0 is best.

        The images are in the same order for all files, so that two results can be compared image by image.
        Any order of the paths gives the same numbers; what `rank_groups` has read is not read again.

        Raises:
            InputError: a file is bad.
        """
        key = frozenset(paths)
        self.rank_groups([sorted(key)])
        if bad := sorted(key & self._bad.keys()):
            raise self._bad[bad[0]]
        return self._ranks[key].astype(np.int32)

    def ranks_of(self, rows: Iterable[tuple[View, ...]]) -> dict[tuple[View, ...], np.ndarray]:
        """`ranks`, (images,) int32, of those rows whose files are all there and not refused."""
        return {views: self.ranks(file.path for file in files) for views in rows if (files := self.usable(views))}

    def evidence(self) -> pa.Table | None:
        """Everything that was scored, image by image. All errors and paired tests can be computed again from it.

        Returns:
            `image` (key), `label`, and a column for each row of a table and side of a claim, named by its posterior
            files, as in `D-256-512/val-dense-q256 + D-256-512/val-dense-q384`: the rank of the image's true class
            under their mean, 0 is best. The names of other seeds begin with their
            folder's, `seed1: `. None before anything was scored.
        """
        if self._images is None or not self._ranks:
            return None
        columns = {"image": self._images.keys, "label": self._images.labels}
        for scores in (self, *self.seeds):
            prefix = "" if scores is self else f"{scores.name}: "
            names = {
                prefix + " + ".join(sorted(f"{path.parent.parent.name}/{path.stem}" for path in group)): ranks
                for group, ranks in scores._ranks.items()
            }
            columns |= {name: names[name] for name in sorted(names)}
        return pa.table(columns)

    def score(self, paths: Iterable[Path]) -> Score:
        """Errors of the files' plain mean, from `ranks`."""
        return score_of(self.ranks(paths), len(self.dataset.classes))

    def commands(self, views: Sequence[View]) -> str:
        """What makes these views in this folder of runs, in Markdown (`advice.for_views`)."""
        runs = [run for run in paper.all_runs() if (self.runs / run.name).is_dir()]
        configs = (self.facts(run).config for run in runs)
        seeds = {config.seed for config in configs if config and config.seed is not None}  # imported runs have none
        return advice.for_views(
            views,
            [run for run in runs if self.finished(run)],
            trainable=self.dataset.trainable,
            seed=seeds.pop() if len(seeds) == 1 else 0,
        )

    def architecture(self, net: str) -> Architecture:
        """A net as most runs here have it, for this data set's classes."""
        return Architecture(net, len(self.dataset.classes), *self.geometry)

    @property
    def geometry(self) -> Geometry:
        """The sizes of most runs on this data set; those of its preset if there are no runs."""
        if self._geometry is None:
            facts = [self.facts(run) for run in paper.all_runs() if (self.runs / run.name).is_dir()]
            configs = [fact.config for fact in facts if fact.config]
            preset = recipe.load(self.dataset.preset)
            mine = self.dataset.fingerprint
            configs = [config for config in configs if config.dataset.fingerprint in (None, mine)]
            sizes = [config.geometry for config in configs]
            self._geometry = Counter(sizes or [preset.geometry]).most_common(1)[0][0]
        return self._geometry


def _reason(path: Path, error: InputError) -> str:
    """What is wrong with a file, for a footnote that names it and says how to renew it."""
    return str(error).removeprefix(str(path)).lstrip(": ").removesuffix(f"; {posterior_files.RENEW}")


def over_seeds(runs: Path, dataset: Dataset) -> Scores:
    """The scores of `folder.seed_folders`: of the first one, with those of the others as its seeds.

    Raises:
        InputError: a folder without runs, whose runs are all of another data set, or with a run that another one has.
    """
    first, *others = seed_folders(runs)
    for folder in others:
        if name := foreign_data(folder, dataset):
            do = "leave it out, or name its data set by --data"
            raise InputError(f"{folder}: its runs are of {name}, not of the images in {dataset.folder}; {do}")
    made = Scores(first, dataset, [Scores(folder, dataset) for folder in others])
    everyone = [made, *made.seeds]
    if others:
        _refuse_copies(everyone)
    if len({each.name for each in everyone}) < len(everyone):
        for each in everyone:
            each.name = str(each.runs)
    return made


def _refuse_copies(seeds: Sequence[Scores]) -> None:
    """Refuses a run that two folders have: it would count as two seeds."""
    seen: dict[str, Path] = {}
    for seed in seeds:
        for run in (run for run in paper.all_runs() if (seed.runs / run.name).is_dir()):
            weights = seed.facts(run).weights
            if weights in seen and seen[weights].parent != seed.runs:
                raise InputError(
                    f"{seed.runs}: {run.name} has the same weights as {seen[weights]}, so it is no other seed; leave "
                    "the folder out, or train it with another --seed"
                )
            if weights:
                seen[weights] = seed.runs / run.name


def foreign_data(runs: Path, dataset: Dataset) -> str | None:
    """The name of another data set that all runs of a folder were trained on, or None."""
    names: list[str] = []
    for folder in existing(runs):
        with suppress(InputError):
            trained = folder.config().dataset
            if trained.fingerprint in (None, dataset.fingerprint):
                return None
            names.append(trained.name or "another data set")
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
