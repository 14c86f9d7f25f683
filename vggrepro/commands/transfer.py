"""Appendix B: the features of trained nets, and a linear SVM on them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vggrepro.commands.options import (
    DEFAULT_RUNS,
    WORKERS,
    Device,
    Precision,
    Runs,
    Seed,
    TablesFolder,
    TestScales,
    Workers,
    machine_of,
    runs_of,
)
from vggrepro.data.transfer_sets import NAMES, TASKS
from vggrepro.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pandas import DataFrame

    from vggrepro.data.transfer_sets.base import TransferSet
    from vggrepro.paper import Transfer
    from vggrepro.results.transfer import Result

TransferData = Annotated[
    str, typer.Option("--data", metavar="SOURCE", help=f"Caltech's or VOC's official folder, or {', '.join(NAMES)}.")
]
Task = Annotated[
    str, typer.Option("--task", metavar="NAME", help=f"Of VOC: {' or '.join(TASKS)} (with boxes of persons).")
]
Downloads = Annotated[Path, typer.Option("--downloads", help="Where data sets given by name are downloaded to.")]
Names = Annotated[list[str] | None, typer.Argument(metavar="RUN", help="Names of runs. Default: every finished run.")]


def features(
    names: Names = None,
    data: TransferData = "",
    q: TestScales = None,
    pool: Annotated[
        bool, typer.Option("--pool", help="Write one file, averaged over Q, in place of one for each Q.")
    ] = False,
    task: Task = "classification",
    downloads: Downloads = Path("downloads"),
    runs: Runs = DEFAULT_RUNS,
    device: Device = "auto",
    precision: Precision = "auto",
    workers: Workers = WORKERS,
) -> None:
    """Compute the features of runs on Caltech or VOC (Appendix B).

    Features are fc7, averaged over the whole image and its mirror image, of unit length, at each Q: by default the
    paper's for the data set. Prints the paths of the files.
    """
    chosen = runs_of(runs, names)
    for folder in chosen:
        folder.require_finished()
    opened, protocol = _opened(data, task, downloads)
    qs = _qs(q, protocol)
    from vggrepro.evaluation.features import compute
    from vggrepro.system import processes

    machine = machine_of(device, precision, workers)
    processes.join_processes(machine.device)
    for folder in chosen:
        for path in compute(folder, opened, qs, machine, pool=pool):
            if processes.is_first():
                print(path)


def transfer(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="RUN", help="Names of runs, whose features are joined. Default: a study of all runs."),
    ] = None,
    data: TransferData = "",
    q: TestScales = None,
    pool: Annotated[
        bool | None,
        typer.Option("--pool/--stack", help="Average the features over Q, or join them; default: as in the paper."),
    ] = None,
    box: Annotated[bool, typer.Option("--box", help="For actions: use the image and the box of the person.")] = False,
    splits: Annotated[int, typer.Option("--splits", min=1, help="Random splits (Caltech).")] = 3,
    train_images: Annotated[
        int | None,
        typer.Option(
            "--train-images", min=2, help="Training images of each class in a random split (default: the paper's)."
        ),
    ] = None,
    test_images: Annotated[
        int | None, typer.Option("--test-images", min=1, help="Test images of each class, at most.")
    ] = None,
    seed: Seed = 0,
    task: Task = "classification",
    downloads: Downloads = Path("downloads"),
    runs: Runs = DEFAULT_RUNS,
    tables: TablesFolder = Path("tables"),
) -> None:
    """Train a linear SVM on features, and print mean class recall or mean average precision (Appendix B).

    With runs: their features are joined, and each split has a line. Without runs: every finished run at each Q, stacked
    and pooled, and two nets together. Then the results and the answers to the paper's questions are written to
    tables/<data set>/transfer.csv and questions.csv.
    """
    import dataclasses

    import pandas as pd

    from vggrepro.report import terminal
    from vggrepro.results import transfer as stage

    chosen = runs_of(runs, names)
    opened, protocol = _opened(data, task, downloads)
    if box and "box" not in opened.pictures:
        raise InputError(f"--box: {opened.name} has no boxes; give --task action with VOC2012")
    protocol = dataclasses.replace(protocol, train=train_images or protocol.train, test=test_images or protocol.test)
    qs, seeds = _qs(q, protocol), range(seed, seed + splits)
    views = ("image", "box") if box else ("image",)
    if names:
        pooled = protocol.pooled if pool is None else pool
        what = stage.Representation(tuple(folder.name for folder in chosen), qs, pooled and len(qs) > 1, views)
        made = stage.result(runs, chosen, opened, what, protocol, seeds)
        terminal.print_table(pd.DataFrame(made.splits))
        terminal.print_table(stage.summary([made]))
        return
    by_name = {folder.name: folder for folder in chosen}
    results = [
        stage.result(runs, [by_name[name] for name in what.runs], opened, what, protocol, seeds)
        for what in stage.study(chosen, protocol, qs, views)
    ]
    configs = {folder.name: folder.config() for folder in chosen}
    _write(results, stage.comparisons(results, configs, protocol.pooled), tables / opened.name)


def _write(results: Sequence[Result], questions: DataFrame, folder: Path) -> None:
    """The study on stdout and as CSV."""
    from vggrepro.report import terminal
    from vggrepro.results import transfer as stage
    from vggrepro.system.files import write_text
    from vggrepro.system.progress import say

    for name, frame in (("transfer", stage.summary(results)), ("questions", questions)):
        terminal.print_table(frame)
        print()
        write_text(folder / f"{name}.csv", str(frame.to_csv(index=False, lineterminator="\n")))
        say(f"{folder / name}.csv")


def _opened(data: str, task: str, downloads: Path) -> tuple[TransferSet, Transfer]:
    """The data set and the paper's protocol for it."""
    from vggrepro import paper
    from vggrepro.data.transfer_sets.opening import open_set

    if not data:
        raise InputError(f"give --data the official folder of Caltech or VOC, or one of {', '.join(NAMES)}")
    if task not in TASKS:
        raise InputError(f"--task {task}: choose {' or '.join(TASKS)}")
    opened = open_set(data, task, downloads)
    return opened, paper.TRANSFER.get(opened.name, paper.TRANSFER["voc2012"])


def _qs(text: str | None, protocol: Transfer) -> tuple[int, ...]:
    from vggrepro.posteriors.protocol import Protocol, parse_qs

    return Protocol(qs=parse_qs(text)).qs or () if text is not None else protocol.qs
