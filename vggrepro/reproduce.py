"""The whole pipeline for all tables and claims: prepare, train, evaluate, fuse. Each step skips what is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vggrepro import paper, plan, recipe
from vggrepro.data.dataset import DATASET_JSON, Dataset, load
from vggrepro.data.prepare import prepare
from vggrepro.data.sources import DOWNLOADED, open_source
from vggrepro.errors import InputError
from vggrepro.evaluation.evaluate import evaluate, missing_files, wanted_files
from vggrepro.posteriors.protocol import Protocol
from vggrepro.report.documents import Document, document_of
from vggrepro.results.scores import over_seeds
from vggrepro.runs.folder import RunFolder
from vggrepro.system import processes
from vggrepro.system.devices import Machine
from vggrepro.system.jobs import SideBySide
from vggrepro.training.chain import Link, Request, plan_chain, train_chain


def plan_all(request: Request) -> list[Link]:
    """Every run that the tables and claims need, ancestors first, each checked against its folder; only reads.

    Raises:
        InputError: a run folder of another configuration.
    """
    return [plan_chain(run, request)[-1] for run in paper.all_runs()]


def reproduce(
    source: str | None,
    preset: str | None,
    data: Path,
    runs: Path,
    tables_folder: Path,
    machine: Machine,
    overrides: dict[str, Any],
    seeds: Sequence[int],
    multicrop: bool = False,
    side_by_side: int = 1,
    init: str | None = None,
    no_top5: bool = False,
) -> Document | None:
    """Does what is not yet done for the tables and claims, and writes `<tables_folder>/<data set>/`.

    Every net is trained with each of `seeds` (`seeded`); the demo's images are drawn with the first.
    With `side_by_side` above 1, that many runs are trained and evaluated at the same time, each in its own process.
    With `init`, no net starts from A: the first run of each has this initialisation. With `no_top5`, 5 or fewer classes
    are accepted.

    Returns:
        The report; None in processes that are not the first.

    Raises:
        InputError: as the stages do; a preset that is not the data set's; a failed job.
        Stopped: a signal asked to stop; progress is saved.
    """
    dataset = _dataset(source, preset, data, machine.workers, seeds[0], no_top5)
    used = recipe.load(dataset.preset, overrides)
    folders = seeded(runs, seeds)
    requests = [Request(used, dataset, folder, machine, seed, init=init) for folder, seed in folders.items()]
    for request in requests:
        plan_all(request)  # refuses before any work
    if side_by_side > 1:
        _all_jobs(side_by_side, folders, dataset, machine, multicrop, init)
    for request in requests:
        _train_and_evaluate(request, multicrop)
    if not processes.is_first():
        return None
    made = document_of(over_seeds(runs, dataset))
    made.write(tables_folder / dataset.name)
    return made


def seeded(runs: Path, seeds: Sequence[int]) -> dict[Path, int]:
    """The folder of each seed's runs: `runs` for the first seed, `runs/seedN` for another (`folder.seed_folders`)."""
    return {runs if place == 0 else runs / f"seed{seed}": seed for place, seed in enumerate(seeds)}


def _train_and_evaluate(request: Request, multicrop: bool) -> None:
    """All runs of one seed."""
    views = plan.needed_views(multicrop)
    for run in views:  # also the finished ones: they must be of this configuration
        train_chain(run, request, quiet=True)
    for run, by_method in views.items():
        for methods, q in plan.evaluations(by_method):
            evaluate(RunFolder(request.runs / run.name), request.dataset, Protocol(methods, q), request.machine)


def _all_jobs(
    count: int, folders: Mapping[Path, int], dataset: Dataset, machine: Machine, multicrop: bool, init: str | None
) -> None:
    """Trains and evaluates all runs of all seeds, `count` at a time, by the commands that do it one by one."""
    jobs = plan.jobs_of_seeds(folders, multicrop, "--workers", str(-(-machine.workers // count)), init=init)
    places = plan.places(count, machine.device.type)
    describe = partial(plan.describe, folders=list(folders))

    def tested(folder: RunFolder, protocol: Protocol) -> bool:
        return not missing_files(folder, protocol, wanted_files(folder, dataset, protocol, machine))

    left = plan.unfinished(jobs, folders, multicrop, tested)
    SideBySide(left, places, next(iter(folders)) / "logs", describe).run()


def require_data(source: str | None, preset: str | None, data: Path) -> None:
    """For --dry-run and --plan, which prepare no images: the data set must be there, of this preset.

    Raises:
        InputError: no such data set, or no such source. A source that would be downloaded is not looked for.
    """
    if source is not None and source not in DOWNLOADED:
        open_source(source)
    dataset = load(data)
    if preset is not None:
        _require_preset(preset, dataset)


def _require_preset(preset: str, dataset: Dataset) -> None:
    if dataset.preset != preset:
        raise InputError(
            f"{dataset.folder} was prepared with preset {dataset.preset}, not {preset}; give another --data folder"
        )


def _dataset(source: str | None, preset: str | None, data: Path, workers: int, seed: int, no_top5: bool) -> Dataset:
    """The data set in `data`, prepared if it is not there; a named source must be the one that it was made from."""
    there = (data / DATASET_JSON).is_file()
    if there and preset is not None:
        _require_preset(preset, load(data))
    if processes.is_first():
        if source is None and (not there or load(data).name == "demo"):
            source = "demo"
        if source is not None:
            chosen = preset or (load(data).preset if there else "demo" if source == "demo" else "paper")
            prepare(open_source(source, seed), data, chosen, workers=workers, allow_few_classes=no_top5)
    processes.barrier()
    return load(data)
