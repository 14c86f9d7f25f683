"""Nets on test images: evaluate, predict."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vggrepro import paper
from vggrepro.commands.options import (
    DEFAULT_DATA,
    DEFAULT_RUNS,
    WORKERS,
    AsJson,
    CeilPool,
    Center,
    Data,
    Dense,
    Device,
    Googlenet,
    Multicrop,
    Precision,
    Runs,
    SplitName,
    SplitOption,
    TableFormat,
    Tencrop,
    TestScales,
    Workers,
    complete_run,
    machine_of,
    methods_of,
    runs_of,
)
from vggrepro.errors import InputError


def evaluate(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN", autocompletion=complete_run, help="Names of runs. Default: every finished run."),
    ] = None,
    dense: Dense = False,
    multicrop: Multicrop = False,
    center: Center = False,
    tencrop: Tencrop = False,
    googlenet: Googlenet = False,
    q: TestScales = None,
    flip: Annotated[bool, typer.Option("--flip/--no-flip", help="Average with the mirrored image.")] = True,
    grid: Annotated[
        int, typer.Option("--grid", help="Multi-crop: the grid has so many crops on each side.")
    ] = paper.GRID,
    ceil_pool: CeilPool = False,
    split: SplitOption = SplitName.val,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what it would cost, and compute nothing.")] = False,
    data: Data = DEFAULT_DATA,
    runs: Runs = DEFAULT_RUNS,
    device: Device = "auto",
    precision: Precision = "auto",
    workers: Workers = WORKERS,
    format_: AsJson = TableFormat.table,
) -> None:
    """Compute the posteriors of runs, and print their errors.

    The method is dense (the default), multi-crop or both, at each Q. Other papers' crops are for comparison. Posteriors
    without flips or with another grid have files of their own, which no table uses.
    """
    import pandas as pd

    from vggrepro.data.dataset import load
    from vggrepro.report import terminal

    dataset, chosen = load(data), runs_of(runs, names)
    for folder in chosen:  # all of them before the first is computed
        folder.require_finished()
    from vggrepro.evaluation import evaluate as stage
    from vggrepro.posteriors.protocol import Protocol, parse_qs
    from vggrepro.system import processes

    qs = parse_qs(q) if q is not None else None
    methods = methods_of(dense=dense, multicrop=multicrop, center=center, tencrop=tencrop, googlenet=googlenet)
    protocol = Protocol(methods, qs, flip, grid, split.value, ceil_pool, precision != "auto")
    machine = machine_of(device, precision, workers)
    if dry_run:
        if processes.is_first():
            from vggrepro.evaluation.dryrun import forecast

            table = forecast(chosen, dataset, protocol, machine)
            if table.empty and format_ is TableFormat.table:
                print("nothing to compute: all that was asked for is up to date")
            else:
                terminal.print_table(table, format_)
        return
    processes.join_processes(machine.device)
    results = pd.concat([stage.evaluate(folder, dataset, protocol, machine) for folder in chosen])
    if processes.is_first() and len(results):
        terminal.print_table(results, format_)


def predict(
    files: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Image files.")],
    name: Annotated[str, typer.Option("--run", metavar="RUN", autocompletion=complete_run, help="A finished run.")],
    dense: Dense = False,
    multicrop: Multicrop = False,
    center: Center = False,
    q: TestScales = None,
    heatmap: Annotated[
        Path | None,
        typer.Option("--heatmap", help="Write a PNG: the image under the dense score map of its best class."),
    ] = None,
    runs: Runs = DEFAULT_RUNS,
    device: Device = "auto",
    precision: Precision = "auto",
    format_: AsJson = TableFormat.table,
) -> None:
    """Classify image files with a run.

    Prints the five best classes with their posteriors, averaged over the Q of each method.
    """
    from vggrepro.evaluation import predict as stage
    from vggrepro.posteriors.protocol import Protocol, parse_qs
    from vggrepro.report import terminal
    from vggrepro.runs.folder import find_run

    folder = find_run(runs, name)
    if heatmap is not None and len(files) != 1:
        raise InputError(f"--heatmap draws one image, {len(files)} are given")
    methods = methods_of(dense=dense, multicrop=multicrop, center=center)
    protocol = Protocol(methods, parse_qs(q) if q is not None else None)
    machine = machine_of(device, precision, WORKERS)
    table = stage.predict(folder, files, protocol, machine)
    if heatmap is not None:
        stage.heatmap(folder, files[0], table["class"].iloc[0], protocol, machine, heatmap)
    terminal.print_table(table, format_)
    if heatmap is not None and format_ is TableFormat.table:
        print(f"heatmap: {heatmap}")
