"""Weights from and for other tools, archives, checks: import, export, archive, doctor."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from vggrepro import paper
from vggrepro.commands.options import (
    DEFAULT_DATA,
    DEFAULT_RUNS,
    AsJson,
    Data,
    Runs,
    RunsOfSeeds,
    TableFormat,
    complete_net,
    complete_run,
    named_runs,
)
from vggrepro.doctor.diagnosis import BROKEN, rows, table
from vggrepro.errors import InputError
from vggrepro.system.progress import say


class To(StrEnum):
    """What export writes."""

    torchvision = "torchvision"
    timm = "timm"
    safetensors = "safetensors"
    onnx = "onnx"
    caffe = "caffe"


class Resample(StrEnum):
    """How evaluate rescales images for an imported run."""

    bilinear = "bilinear"
    bicubic = "bicubic"


class Input(StrEnum):
    """What a state dict's input is."""

    caffe = "caffe"
    torchvision = "torchvision"


def import_(
    net: Annotated[
        str,
        typer.Argument(
            autocompletion=complete_net,
            help=f"Net of Table 1: {', '.join(paper.NETS)}. Without WEIGHTS: a folder of released files.",
        ),
    ],
    weights: Annotated[
        str | None,
        typer.Argument(
            help="A .caffemodel, MatConvNet's .mat, Keras's .h5 or .keras, a state dict of torchvision or timm, ONNX, "
            "safetensors; or timm:NAME, torchvision:NAME.",
            show_default=False,
        ),
    ] = None,
    as_: Annotated[
        str | None,
        typer.Option("--as", metavar="RUN", help="Name of the run (default: the paper's for published files)."),
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option("--scale", metavar="S", help="Training scale of the weights, S or MIN:MAX, if you know it."),
    ] = None,
    resample: Annotated[
        Resample | None, typer.Option("--resample", help="How evaluate rescales images for it (default: bilinear).")
    ] = None,
    input_: Annotated[
        Input | None,
        typer.Option(
            "--input",
            help="A state dict's input: caffe (BGR 0-255 minus the mean) or torchvision (RGB 0-1, normalised).",
        ),
    ] = None,
    replace: Annotated[bool, typer.Option("--replace", help="Replace a run of that name.")] = False,
    runs: Runs = DEFAULT_RUNS,
) -> None:
    """Turn weights that were trained elsewhere into a finished run.

    evaluate, fuse, report and predict then treat it like any other run. Tables mark it.
    """
    from vggrepro.exchange.importing import import_folder, import_weights

    if weights is None:
        if as_ or scale or input_:
            raise InputError("--as, --scale and --input are for one file of weights; leave them out for a folder")
        for folder in import_folder(Path(net), runs, resample=resample, replace=replace):
            print(folder.path)
        return
    print(import_weights(net, weights, runs, as_, scale, resample=resample, input_=input_, replace=replace).path)


def export(
    name: Annotated[str, typer.Argument(metavar="RUN", autocompletion=complete_run, help="A finished run.")],
    to: Annotated[To, typer.Option("--to", help="torchvision and timm hold A, B, D and E; the others every net.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="File to write, for timm a folder (default: in runs/RUN/export).")
    ] = None,
    dense: Annotated[
        bool, typer.Option("--dense", help="onnx: whole images of any size, scores averaged over positions.")
    ] = False,
    card: Annotated[bool, typer.Option("--card", help="Also write a model card in Markdown.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Overwrite existing files.")] = False,
    runs: Runs = DEFAULT_RUNS,
) -> None:
    """Write a run's net for another tool, with its preprocessing.

    The numbers of the weights stay as they are, bit by bit. Prints the path of each file.
    """
    from vggrepro.exchange.exporting import export as stage
    from vggrepro.runs.folder import find_run

    for path in stage(find_run(runs, name), to.value, out, force=force, dense=dense, card=card):
        print(path)


def archive(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN",
            autocompletion=complete_run,
            help="Names of runs. Default: every finished run of all seeds.",
        ),
    ] = None,
    to: Annotated[Path, typer.Option("--to", help="Folder for the parts.")] = Path("archive"),
    size: Annotated[
        str, typer.Option("--size", metavar="SIZE", help="Largest size of a part, such as 16MB or 2GB.")
    ] = "1GB",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing archive.")] = False,
    data: Data = DEFAULT_DATA,
    runs: RunsOfSeeds = DEFAULT_RUNS,
) -> None:
    """Pack runs without their weights, to share or to move them.

    The parts hold configuration, metrics and posteriors: tables and claims made of them are the same. Prints the path
    of each part.
    """
    from vggrepro.data.dataset import load
    from vggrepro.runs import archive as stage
    from vggrepro.runs.folder import existing, seed_folders

    bytes_ = stage.parse_size(size)
    every = [folder for seed in seed_folders(runs) for folder in existing(seed) if folder.trained]
    chosen = named_runs(runs, names or ()) or every
    parts = stage.archive(chosen, load(data), to, bytes_, force=force)
    say(f"archive: {len(chosen)} run{'s' if len(chosen) != 1 else ''}; unpack: {stage.unpacking(to)}")
    for path in parts:
        print(path)


def doctor(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="RUN",
            autocompletion=complete_run,
            help="Names of runs. Default: all that can be checked in some seconds.",
        ),
    ] = None,
    data: Data = DEFAULT_DATA,
    runs: Runs = DEFAULT_RUNS,
    format_: AsJson = TableFormat.table,
) -> None:
    """Check the installation, this machine, the data set and the runs.

    Exit code 2 if something is broken.
    """
    from vggrepro.doctor import diagnose as stage
    from vggrepro.report import terminal
    from vggrepro.report.records import json_text

    findings = stage.diagnose(data, runs, names or ())
    if format_ is TableFormat.table and terminal.wanted():
        terminal.show([terminal.rows_grid(("", "", ""), rows(findings))])
    else:
        print(json_text(findings) if format_ is TableFormat.json else table(findings))
    if any(finding.state == BROKEN for finding in findings):
        raise typer.Exit(2)
