"""The whole pipeline for all tables and claims: prepare, train, evaluate, fuse. Each step skips what is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vggrepro import paper, recipe
from vggrepro.data.dataset import DATASET_JSON, Dataset, load
from vggrepro.data.prepare import prepare
from vggrepro.data.sources import open_source
from vggrepro.errors import InputError
from vggrepro.evaluation.evaluate import evaluate
from vggrepro.paper import View
from vggrepro.posteriors.protocol import Protocol
from vggrepro.report.documents import Document, gather
from vggrepro.results.paper_claims import claims
from vggrepro.results.scores import Scores
from vggrepro.runs.folder import RunFolder
from vggrepro.system import processes
from vggrepro.system.devices import Machine
from vggrepro.training.chain import Link, Request, plan_chain, train_chain


def needed_views(multicrop: bool = False) -> dict[paper.Run, dict[str, list[int]]]:
    """Q by method of each run, so that every table row and claim has its posteriors.

    With `multicrop`, every run is also seen by crops, at its own Q set.
    """
    runs = paper.all_runs()
    views = [view for table in (3, 4, 5, 6) for row in paper.rows(table) for view in row.views]
    views += [view for claim in claims() for pair in claim.pairs for view in (*pair.first.views, *pair.second.views)]
    if multicrop:
        views += [View(run, q, "multicrop") for run in runs for q in run.scale.test_scales]
    result: dict[paper.Run, dict[str, list[int]]] = {run: {} for run in runs}
    for view in dict.fromkeys(views):
        result[view.run].setdefault(view.method, []).append(view.q)
    return result


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
    seed: int,
    multicrop: bool = False,
) -> Document | None:
    """Does what is not yet done for the tables and claims, and writes `<tables_folder>/<data set>/`.

    Returns:
        The report; None in processes that are not the first.

    Raises:
        InputError: as the stages do; a preset that is not the data set's.
    """
    dataset = _dataset(source, preset, data, machine.workers, seed)
    request = Request(recipe.load(dataset.preset, overrides), dataset, runs, machine, seed)
    plan_all(request)  # refuses before any work
    views = needed_views(multicrop)
    for run in views:  # also the finished ones: they must be of this configuration
        train_chain(run, request, quiet=True)
    for run, by_method in views.items():
        qs = {tuple(sorted(qs)) for qs in by_method.values()}
        for q in sorted(qs):
            methods = tuple(method for method, wanted in by_method.items() if tuple(sorted(wanted)) == q)
            evaluate(RunFolder(runs / run.name), dataset, Protocol(methods, q), machine)
    if processes.rank():
        return None
    made = gather(Scores(runs, dataset))
    made.write(tables_folder / dataset.name)
    return made


def _dataset(source: str | None, preset: str | None, data: Path, workers: int, seed: int) -> Dataset:
    """The data set in `data`, prepared if it is not there; a source that is named must be the one it was made of."""
    there = (data / DATASET_JSON).is_file()
    if there and preset is not None and load(data).preset != preset:
        raise InputError(
            f"{data} was prepared with preset {load(data).preset}, not {preset}; give another --data folder"
        )
    if processes.rank() == 0:
        if source is None and (not there or load(data).name == "demo"):
            source = "demo"
        if source is not None:
            chosen = preset or (load(data).preset if there else "demo" if source == "demo" else "paper")
            prepare(open_source(source, seed), data, chosen, workers=workers)
    processes.barrier()
    return load(data)
