"""What is made of posteriors: fuse, report."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vggrepro.errors import InputError
from vggrepro.options import (
    DEFAULT_DATA,
    DEFAULT_RUNS,
    Data,
    Dense,
    Format,
    Multicrop,
    Runs,
    SplitName,
    SplitOption,
    TablesFolder,
    as_options,
    methods_of,
    require_runs,
    runs_of,
)
from vggrepro.shell import print_table

if TYPE_CHECKING:
    from vggrepro.dataset import Dataset


def fuse(
    names: Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="Default: Tables 3-7.")] = None,
    dense: Dense = False,
    multicrop: Multicrop = False,
    split: SplitOption = SplitName.val,
    submission: Annotated[
        Path | None, typer.Option("--submission", help="Write the averaged posteriors as ILSVRC's server takes them.")
    ] = None,
    data: Data = DEFAULT_DATA,
    runs: Runs = DEFAULT_RUNS,
    tables: TablesFolder = Path("tables"),
) -> None:
    """Average posteriors, write Tables 3-7.

    With runs: prints the error of each and of their averaged posteriors; with --submission, writes the five best
    devkit ids of each image. Without runs: writes every row of Tables 3-7 to tables/<data set>/.
    """
    from vggrepro import tables as stage
    from vggrepro.dataset import load
    from vggrepro.report import write

    dataset = load(data)
    require_runs(runs)
    methods = methods_of(dense=dense, multicrop=multicrop)
    if submission is not None:
        from vggrepro.submission import submit

        if not names:
            raise InputError("--submission: name the runs whose posteriors are averaged")
        count = submit(runs_of(runs, names), methods, split.value, dataset, submission)
        print(f"{submission}: {count:,} images")
        return
    if names:
        print_table(stage.fuse_runs(runs_of(runs, names), methods, split.value))
        return
    made = stage.tables(runs, dataset, range(3, 8), as_options(data, runs))
    for path in write(made, dataset, tables / dataset.name):
        print(path)


def report(
    format_: Annotated[Format, typer.Option("--format", help="Markdown or CSV.")] = Format.md,
    data: Data = DEFAULT_DATA,
    runs: Runs = DEFAULT_RUNS,
) -> None:
    """Print Tables 1-7 beside the paper's numbers."""
    print(report_text(data, runs, format_), end="")


def report_text(data: Path, runs: Path, format_: Format) -> str:
    """Tables 1-7 as `report` prints them."""
    from vggrepro import report as stage
    from vggrepro.dataset import load
    from vggrepro.tables import tables

    dataset: Dataset = load(data)
    require_runs(runs)
    made = tables(runs, dataset, range(1, 8), as_options(data, runs))
    return stage.markdown(made, dataset) if format_ is Format.md else stage.csv_text(made)
