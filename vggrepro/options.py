"""The options that several commands share, declared once."""

from __future__ import annotations

import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

DEFAULT_DATA, DEFAULT_RUNS = Path("data"), Path("runs")


class Layers(StrEnum):
    """Which layers finetune-scale trains."""

    all = "all"
    fc = "fc"


class SplitName(StrEnum):
    """Which split evaluate runs over."""

    val = "val"
    test = "test"


class Format(StrEnum):
    """How report writes the tables."""

    md = "md"
    csv = "csv"


Data = Annotated[Path, typer.Option("--data", envvar="VGGREPRO_DATA", help="Data set folder that prepare wrote.")]
Runs = Annotated[Path, typer.Option("--runs", envvar="VGGREPRO_RUNS", help="Folder of the runs.")]
TablesFolder = Annotated[Path, typer.Option("--tables", help="Folder that gets <data set>/table3.csv and so on.")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")]
Precision = Annotated[str, typer.Option("--precision", help="auto, fp32, tf32 or bf16; auto is bf16 if native.")]
Workers = Annotated[int, typer.Option("--workers", min=0, help="Threads that decode and crop images.")]
Seed = Annotated[int, typer.Option("--seed", min=0, max=2**31 - 1, help="Of every random choice.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="Replace a value of the recipe; repeatable.")
]
Epochs = Annotated[int | None, typer.Option("--epochs", min=1, help="Most epochs of each run trained now.")]
Width = Annotated[float | None, typer.Option("--width", help="Multiply channels and FC units; 1 is the paper.")]
Init = Annotated[str | None, typer.Option("--init", help="Start from random, glorot, he or a finished run.")]
MicroBatch = Annotated[int, typer.Option("--micro-batch", min=0, help="Images at a time on a device; 0: all.")]
CheckpointMinutes = Annotated[float, typer.Option("--checkpoint-minutes", min=0.0, help="Between two checkpoints.")]
Retrain = Annotated[bool, typer.Option("--retrain", help="Train NET again although it is finished.")]
Dense = Annotated[bool, typer.Option("--dense", help="The net as convolutions over the whole image.")]
Multicrop = Annotated[bool, typer.Option("--multicrop", help="5x5 crops, two flips: 150 crops over three Q.")]
WORKERS = min(8, os.cpu_count() or 2)
