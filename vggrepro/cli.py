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
    CeilPool,
    Center,
    CheckpointMinutes,
    Data,
    DecodeOption,
    Dense,
    Device,
    DryRun,
    Epochs,
    Format,
    Googlenet,
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
    SplitOption,
    TablesFolder,
    Tencrop,
    TensorBoard,
    TestScales,
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
    from vggrepro.chain import Link, Request
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
    from vggrepro.progress import say
    from vggrepro.sources import open_source

    opened = open_source(source, seed, downloads)
    say(f"prepare: {opened.description}")
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
    tensorboard: TensorBoard = False,
    dry_run: DryRun = False,
    retrain: Retrain = False,
    seed: Seed = 0,
) -> None:
    """Train NET at a scale, first what it starts from.

    The chain is A-256, NET-256, NET-384, NET-256-512; what is finished is skipped.
    """
    target = Run(paper.check_net(net), Scale.parse(scale))
    values = recipe_values(set_, epochs, width, decode)
    dataset, recipe = resolve(data, values)
    machine = machine_of(device, precision, workers, micro_batch, checkpoint_minutes, tensorboard)
    request = _request(recipe, dataset, runs, machine, seed, retrain)
    _train(target, request, init, values if dry_run else None)


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
    tensorboard: TensorBoard = False,
    dry_run: DryRun = False,
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
    values = recipe_values(set_, epochs, width, decode)
    dataset, recipe = resolve(data, values)
    machine = machine_of(device, precision, workers, micro_batch, checkpoint_minutes, tensorboard)
    request = _request(recipe, dataset, runs, machine, seed, retrain)
    _train(target, request, from_, values if dry_run else None)


@app.command()
def evaluate(
    names: Annotated[list[str] | None, typer.Argument(metavar="[RUN]...", help="Default: every finished run.")] = None,
    dense: Dense = False,
    multicrop: Multicrop = False,
    center: Center = False,
    tencrop: Tencrop = False,
    googlenet: Googlenet = False,
    q: TestScales = None,
    flip: Annotated[bool, typer.Option("--flip/--no-flip", help="Average with the mirrored image.")] = True,
    grid: Annotated[int, typer.Option("--grid", help="Multi-crop positions a side.")] = paper.GRID,
    ceil_pool: CeilPool = False,
    split: SplitOption = SplitName.val,
    data: Data = DEFAULT_DATA,
    runs: Runs = DEFAULT_RUNS,
    device: Device = "auto",
    precision: Precision = "auto",
    workers: Workers = WORKERS,
) -> None:
    """Compute the posteriors of runs, print errors.

    Dense (the default), multi-crop or both, at each Q; other papers' crops for comparison. Posteriors without flips or
    with another grid go to files of their own, which no table uses.
    """
    import pandas as pd

    from vggrepro.dataset import load

    dataset, chosen = load(data), runs_of(runs, names)
    for run in chosen:  # all of them before the first is computed
        run.require_finished()
    from vggrepro import evaluate as stage
    from vggrepro import hardware

    qs = stage.parse_qs(q) if q is not None else None
    methods = methods_of(dense=dense, multicrop=multicrop, center=center, tencrop=tencrop, googlenet=googlenet)
    protocol = stage.Protocol(methods, qs, flip, grid, split.value, ceil_pool, precision != "auto")
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

        count = submit(runs_of(runs, names), methods, split.value, dataset, submission)
        print(f"{submission}: {count:,} images")
        return
    if names:
        _print_table(stage.fuse_runs(runs_of(runs, names), methods, split.value))
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
def predict(
    files: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    name: Annotated[str, typer.Option("--run", help="A finished run.")],
    dense: Dense = False,
    multicrop: Multicrop = False,
    center: Center = False,
    q: TestScales = None,
    heatmap: Annotated[
        Path | None, typer.Option("--heatmap", help="Overlay the score map of the best class on the image, as a PNG.")
    ] = None,
    runs: Runs = DEFAULT_RUNS,
    device: Device = "auto",
    precision: Precision = "auto",
) -> None:
    """Classify image files with a run.

    Prints the five best classes with their posteriors, averaged over the Q of each method.
    """
    from vggrepro import predict as stage
    from vggrepro.evaluate import Protocol, parse_qs
    from vggrepro.runs import folder

    run = folder(runs, name)
    if heatmap is not None and len(files) != 1:
        raise InputError(f"--heatmap draws one image, {len(files)} are given")
    methods = methods_of(dense=dense, multicrop=multicrop, center=center)
    protocol = Protocol(methods, parse_qs(q) if q is not None else None)
    machine = machine_of(device, precision, 0)
    _print_table(stage.predict(run, files, protocol, machine))
    if heatmap is not None:
        stage.heatmap(run, files[0], protocol, machine, heatmap)
        print(f"heatmap: {heatmap}")


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
    tensorboard: TensorBoard = False,
    dry_run: DryRun = False,
    seed: Seed = 0,
) -> None:
    """Run the whole pipeline, print the tables.

    Prepares, trains all nets of Tables 3-6, evaluates and fuses; what is done is skipped.
    """
    from vggrepro import hardware
    from vggrepro.reproduce import plan_all
    from vggrepro.reproduce import reproduce as run_all

    machine = machine_of(device, precision, workers, micro_batch, checkpoint_minutes, tensorboard)
    values = recipe_values(set_, epochs, width, decode)
    if dry_run:
        dataset, recipe = resolve(data, values)
        request = _request(recipe, dataset, runs, machine, seed)
        return _rehearse(plan_all(request), request, values)
    hardware.join_processes(machine.device)
    with stop_exit():
        run_all(source, preset, data, runs, tables, machine, values, seed, as_options(data, runs))
    if hardware.rank() == 0:
        print(_report(data, runs, Format.md), end="")


# What commands share


def _request(
    recipe: Recipe, dataset: Dataset, runs: Path, machine: Machine, seed: int, retrain: bool = False
) -> Request:
    from vggrepro.chain import Request

    return Request(recipe, dataset, runs, machine, seed, retrain)


def _train(target: Run, request: Request, start: str | None, rehearsed: dict[str, Any] | None) -> None:
    """Trains the chain to `target`, or, given the recipe's values from options, says what that would be."""
    from vggrepro import hardware
    from vggrepro.chain import plan_chain, train_chain

    if rehearsed is not None:
        return _rehearse(plan_chain(target, request, start), request, rehearsed)
    hardware.join_processes(request.machine.device)
    with stop_exit():
        train_chain(target, request, start)


def _rehearse(links: list[Link], request: Request, values: dict[str, Any]) -> None:
    from vggrepro.dryrun import rehearse

    print(rehearse(links, request, values))


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
