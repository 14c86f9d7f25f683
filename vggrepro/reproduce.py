"""The whole pipeline for Tables 3-6: prepare, train, evaluate, fuse. Each step skips what is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vggrepro import hardware, paper, recipe
from vggrepro.chain import Link, Request, plan_chain, train_chain
from vggrepro.dataset import DATASET_JSON, Dataset, load
from vggrepro.errors import InputError
from vggrepro.evaluate import Protocol, evaluate
from vggrepro.prepare import prepare
from vggrepro.report import write
from vggrepro.runs import RunFolder
from vggrepro.sources import open_source
from vggrepro.tables import tables
from vggrepro.train import Machine


def needed_views() -> dict[paper.Run, dict[str, list[int]]]:
    """Q by method of each run, so that every row of Tables 3-6 has its posteriors."""
    views: dict[paper.Run, dict[str, list[int]]] = {run: {} for run in paper.all_runs()}
    for table in (3, 4, 5, 6):
        for row in paper.rows(table):
            for view in row.views:
                qs = views[view.run].setdefault(view.method, [])
                if view.q not in qs:
                    qs.append(view.q)
    return views


def plan_all(request: Request) -> list[Link]:
    """Every run of Tables 3-6, ancestors first, each checked against its folder; only reads.

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
    seed: int,
    options: str,
) -> None:
    """Does what is not yet done of Tables 3-6 and writes `<tables_folder>/<data set>/`.

    Raises:
        InputError: as the stages do; a preset that is not the data set's.
    """
    dataset = _dataset(source, preset, data, machine.workers, seed)
    request = Request(recipe.load(dataset.preset, overrides), dataset, runs, machine, seed)
    plan_all(request)  # refuses before any work
    views = needed_views()
    for run in views:  # also the finished ones: they must be of this configuration
        train_chain(run, request, quiet=True)
    for run, by_method in views.items():
        qs = {tuple(sorted(qs)) for qs in by_method.values()}
        for q in sorted(qs):
            methods = tuple(method for method, wanted in by_method.items() if tuple(sorted(wanted)) == q)
            evaluate(RunFolder(runs / run.name), dataset, Protocol(methods, q), machine)
    if hardware.rank() == 0:
        write(tables(runs, dataset, range(3, 8), options), dataset, tables_folder / dataset.name)


def _dataset(source: str | None, preset: str | None, data: Path, workers: int, seed: int) -> Dataset:
    """The data set in `data`, prepared if it is not there; a source that is named must be the one it was made of."""
    there = (data / DATASET_JSON).is_file()
    if there and preset is not None and load(data).preset != preset:
        raise InputError(
            f"{data} was prepared with preset {load(data).preset}, not {preset}; give another --data folder"
        )
    if hardware.rank() == 0:
        if source is None and (not there or load(data).name == "demo"):
            source = "demo"
        if source is not None:
            chosen = preset or (load(data).preset if there else "demo" if source == "demo" else "paper")
            prepare(open_source(source, seed), data, chosen, workers=workers)
    hardware.barrier()
    return load(data)
