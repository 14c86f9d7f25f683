"""The command line: options in, one call of a stage, results on stdout, talk on stderr.

torch and pandas are imported by the commands that need them, so that `--help` is quick.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vggrepro import __version__, paper
from vggrepro.errors import InputError
from vggrepro.options import (
    DEFAULT_DATA,
    DEFAULT_RUNS,
    WORKERS,
    CheckpointMinutes,
    Data,
    DecodeOption,
    Dense,
    Device,
    Epochs,
    Format,
    Init,
    Layers,
    MicroBatch,
    Multicrop,
    Precision,
    Retrain,
    Runs,
    Seed,
    Set,
    SplitName,
    TablesFolder,
    Width,
    Workers,
    as_options,
    machine_of,
    methods_of,
    recipe_values,
    require_runs,
    resolve,
    runs_of,
)
from vggrepro.paper import Run, Scale
from vggrepro.shell import leave_with, stop_exit

if TYPE_CHECKING:
    from vggrepro.dataset import Dataset
    from vggrepro.recipe import Recipe
    from vggrepro.train import Machine

app = typer.Typer(
    name="vggrepro",
    help="Reproduces the tables of Simonyan & Zisserman, Very Deep Convolutional Networks (arXiv 1409.1556): "
    "prepare → train → evaluate → fuse → report.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"vggrepro {__version__}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def prepare(
    source: Annotated[str, typer.Argument(help="demo, a folder, or a name such as imagenette.")] = "demo",
    to: Annotated[
        Path | None, typer.Option("--to", help="Folder to write (default: the --data folder, 'data').")
    ] = None,
    data: Data = DEFAULT_DATA,
    preset: Annotated[
        str | None, typer.Option("--preset", help="paper, quarter or demo: crop, width and recipe.")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave unreadable images out and list them.")] = False,
    no_top5: Annotated[bool, typer.Option("--no-top5", help="Accept 5 or fewer classes: no top-5 errors.")] = False,
    store_side: Annotated[
        int, typer.Option("--store-side", min=0, help="Keep training images as copies of this shorter side, pixels.")
    ] = 0,
    verify: Annotated[bool, typer.Option("--verify", help="Check the MD5 sums of the official files first.")] = False,
    downloads: Annotated[
        Path, typer.Option("--downloads", help="Where data sets named by SOURCE are downloaded to.")
    ] = Path("downloads"),
    workers: Workers = WORKERS,
    seed: Seed = 0,
) -> None:
    """Turn images into a data set folder.

    SOURCE is demo (generated, the default); a folder: ILSVRC-2012 as downloaded, unpacked or from Kaggle, train/ and
    val/ class folders, Hugging Face parquet files, WebDataset tars; or a torchvision data set by name (imagenette,
    cifar10, food101 …), which is downloaded.
    """
    from vggrepro.prepare import check_downloads
    from vggrepro.prepare import prepare as run_prepare
    from vggrepro.sources import open_source

    opened = open_source(source, seed, downloads)
    if verify:
        check_downloads(opened)
    preset = preset or ("demo" if source == "demo" else "paper")
    dataset = run_prepare(
        opened,
        to or data,
        preset,
        skip_bad=skip_bad,
        allow_few_classes=no_top5,
        store_side=store_side,
        workers=workers,
    )
    counts = ", ".join(f"{count:,} {split}" for split, count in dataset.counts.items())
    print(f"{dataset.folder}: {dataset.name}, {len(dataset.classes)} classes, {counts} images, preset {dataset.preset}")
    if dataset.subset:
        print(f"a subset: {dataset.subset}")


@app.command()
def dataset(
    data: Data = DEFAULT_DATA,
    verify: Annotated[bool, typer.Option("--verify", help="Compare every shard with its checksum.")] = False,
    sheet: Annotated[Path | None, typer.Option("--sheet", help="Write a PNG of sample images here.")] = None,
    workers: Workers = WORKERS,
) -> None:
    """Show what a prepared data set holds.

    Counts, class balance, sizes and formats, and what was left out.
    """
    from vggrepro import survey
    from vggrepro.dataset import load

    opened = load(data)
    print("\n".join(survey.notes(opened)))
    _print_table(survey.splits_table(opened))
    if sheet is not None:
        survey.sheet(opened, sheet)
        print(f"samples: {sheet}")
    if verify:
        print(f"verified: {survey.verify(opened, workers)} shards are as they were written")


@app.command()
def train(
    net: Annotated[str, typer.Argument(help=f"Net of Table 1: {', '.join(paper.NETS)}.")],
    scale: Annotated[str, typer.Option("--scale", help="Training scale S (256, 384) or MIN:MAX (256:512).")] = "256",
    data: Data = DEFAULT_DATA,
    runs: Runs = DEFAULT_RUNS,
    init: Init = None,
    epochs: Epochs = None,
    width: Width = None,
    set_: Set = None,
    decode: DecodeOption = None,
    device: Device = "auto",
    precision: Precision = "auto",
    workers: Workers = WORKERS,
    micro_batch: MicroBatch = 0,
    checkpoint_minutes: CheckpointMinutes = 10.0,
    retrain: Retrain = False,
    seed: Seed = 0,
) -> None:
    """Train NET at a scale, first what it starts from.

    The chain is A-256, NET-256, NET-384, NET-256-512; what is finished is skipped.
    """
    target = Run(paper.check_net(net), Scale.parse(scale))
    dataset, recipe = resolve(data, recipe_values(set_, epochs, width, decode))
    machine = machine_of(device, precision, workers, micro_batch, checkpoint_minutes)
    _train(target, dataset, recipe, runs, machine, seed, retrain, init)


@app.command("finetune-scale")
def finetune_scale(
    net: Annotated[str, typer.Argument(help=f"Net of Table 1: {', '.join(paper.NETS)}.")],
    scale: Annotated[str, typer.Option("--scale", help="New training scale S or MIN:MAX.")],
    from_: Annotated[str | None, typer.Option("--from", help="Run to continue (default: the paper's).")] = None,
    layers: Annotated[Layers, typer.Option("--layers", help="Train all layers or the FC layers only.")] = Layers.all,
    data: Data = DEFAULT_DATA,
    runs: Runs = DEFAULT_RUNS,
    epochs: Epochs = None,
    width: Width = None,
    set_: Set = None,
    decode: DecodeOption = None,
    device: Device = "auto",
    precision: Precision = "auto",
    workers: Workers = WORKERS,
    micro_batch: MicroBatch = 0,
    checkpoint_minutes: CheckpointMinutes = 10.0,
    retrain: Retrain = False,
    seed: Seed = 0,
) -> None:
    """Continue NET at another training scale.

    Starts from the paper's run (trained first if it is missing) or from --from, at the recipe's rescale_rate.
    """
    from vggrepro.runs import folder

    target = Run(paper.check_net(net), Scale.parse(scale), fc_only=layers is Layers.fc)
    if from_ is not None:
        parent = folder(runs, from_)
        if parent.config()["net"] != target.net:
            raise InputError(f"--from {from_} is a run of net {parent.config()['net']}, not {target.net}")
    elif not target.is_rescaling:
        raise InputError(
            f"{target.name} continues no run of {net}; train it with 'vggrepro train {net} --scale {scale}'"
        )
    dataset, recipe = resolve(data, recipe_values(set_, epochs, width, decode))
    machine = machine_of(device, precision, workers, micro_batch, checkpoint_minutes)
    _train(target, dataset, recipe, runs, machine, seed, retrain, from_)


@app.command()
def evaluate(
    names: Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="Default: every finished run.")] = None,
    dense: Dense = False,
    multicrop: Multicrop = False,
    q: Annotated[str | None, typer.Option("--q", help="Test scales: 256,384,512 or 224:512:32.")] = None,
    flip: Annotated[bool, typer.Option("--flip/--no-flip", help="Average with the mirrored image.")] = True,
    grid: Annotated[int, typer.Option("--grid", help="Multi-crop positions a side.")] = paper.GRID,
    split: Annotated[SplitName, typer.Option("--split", help="Split to run over.")] = SplitName.val,
    data: Data = DEFAULT_DATA,
    runs: Runs = DEFAULT_RUNS,
    device: Device = "auto",
    precision: Precision = "auto",
    workers: Workers = WORKERS,
) -> None:
    """Compute the posteriors of runs, print errors.

    Dense (the default), multi-crop or both, at each Q. Posteriors without flips or with another grid go to files of
    their own, which no table uses.
    """
    import pandas as pd

    from vggrepro.dataset import load

    dataset, chosen = load(data), runs_of(runs, names)
    for run in chosen:  # all of them before the first is computed
        run.require_finished()
    from vggrepro import evaluate as stage
    from vggrepro import hardware

    qs = stage.parse_qs(q) if q is not None else None
    methods = methods_of(dense, multicrop) or ("dense",)
    protocol = stage.Protocol(methods, qs, flip, grid, split.value, exact_precision=precision != "auto")
    machine = machine_of(device, precision, workers)
    hardware.join_processes(machine.device)
    results = pd.concat([stage.evaluate(run, dataset, protocol, machine) for run in chosen])
    if hardware.rank() == 0 and len(results):
        _print_table(results)


@app.command()
def fuse(
    names: Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="Default: Tables 3-7.")] = None,
    dense: Dense = False,
    multicrop: Multicrop = False,
    data: Data = DEFAULT_DATA,
    runs: Runs = DEFAULT_RUNS,
    tables: TablesFolder = Path("tables"),
) -> None:
    """Average posteriors, write Tables 3-7.

    With runs: prints the error of each and of their averaged posteriors. Without: writes every row of Tables 3-7 to
    tables/<data set>/.
    """
    from vggrepro import tables as stage
    from vggrepro.dataset import load
    from vggrepro.report import write

    dataset = load(data)
    require_runs(runs)
    if names:
        _print_table(stage.fuse_runs(runs_of(runs, names), methods_of(dense, multicrop) or ("dense",), "val"))
        return
    made = stage.tables(runs, dataset, range(3, 8), as_options(data, runs))
    for path in write(made, dataset, tables / dataset.name):
        print(path)


@app.command()
def report(
    format_: Annotated[Format, typer.Option("--format", help="Markdown or CSV.")] = Format.md,
    data: Data = DEFAULT_DATA,
    runs: Runs = DEFAULT_RUNS,
) -> None:
    """Print Tables 1-7 beside the paper's numbers."""
    print(_report(data, runs, format_), end="")


@app.command()
def status(data: Data = DEFAULT_DATA, runs: Runs = DEFAULT_RUNS) -> None:
    """Show how far each run is."""
    from vggrepro.progress import say
    from vggrepro.runs import status_table

    if not runs.is_dir():
        say(f"no folder {runs} yet")
    _print_table(status_table(runs))


@app.command()
def reproduce(
    preset: Annotated[
        str | None, typer.Option("--preset", help="demo, quarter or paper (default: the data set's; demo if none).")
    ] = None,
    source: Annotated[
        str | None, typer.Option("--source", help="What to prepare if --data is not there (default: demo).")
    ] = None,
    data: Data = DEFAULT_DATA,
    runs: Runs = DEFAULT_RUNS,
    tables: TablesFolder = Path("tables"),
    epochs: Epochs = None,
    width: Width = None,
    set_: Set = None,
    decode: DecodeOption = None,
    device: Device = "auto",
    precision: Precision = "auto",
    workers: Workers = WORKERS,
    micro_batch: MicroBatch = 0,
    checkpoint_minutes: CheckpointMinutes = 10.0,
    seed: Seed = 0,
) -> None:
    """Run the whole pipeline, print the tables.

    Prepares, trains all nets of Tables 3-6, evaluates and fuses; what is done is skipped.
    """
    from vggrepro import hardware
    from vggrepro.reproduce import reproduce as run_all

    machine = machine_of(device, precision, workers, micro_batch, checkpoint_minutes)
    hardware.join_processes(machine.device)
    values = recipe_values(set_, epochs, width, decode)
    with stop_exit():
        run_all(source, preset, data, runs, tables, machine, values, seed, as_options(data, runs))
    if hardware.rank() == 0:
        print(_report(data, runs, Format.md), end="")


# What commands share


def _train(
    target: Run,
    dataset: Dataset,
    recipe: Recipe,
    runs: Path,
    machine: Machine,
    seed: int,
    retrain: bool,
    start: str | None,
) -> None:
    from vggrepro import hardware
    from vggrepro.chain import Request, train_chain

    hardware.join_processes(machine.device)
    with stop_exit():
        train_chain(target, Request(recipe, dataset, runs, machine, seed, retrain), start)


def _report(data: Path, runs: Path, format_: Format) -> str:
    from vggrepro import report as stage
    from vggrepro.dataset import load
    from vggrepro.tables import tables

    dataset: Dataset = load(data)
    require_runs(runs)
    made = tables(runs, dataset, range(1, 8), as_options(data, runs))
    return stage.markdown(made, dataset) if format_ is Format.md else stage.csv_text(made)


def _print_table(frame: Any) -> None:
    """A small table on stdout, readable and easy to cut."""
    frame = frame.map(lambda value: math.nan if value is None else value)
    rates = {"learning_rate": "{:g}".format} if "learning_rate" in frame else None
    print(frame.to_string(index=False, na_rep="–", float_format="{:.2f}".format, formatters=rates))


def main() -> None:
    """Entry point of `vggrepro` and `python -m vggrepro`."""
    leave_with(app)
