"""Images: prepare, dataset."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vggrepro.commands.options import (
    DEFAULT_DATA,
    WORKERS,
    AsJson,
    Data,
    NoTop5,
    Seed,
    TableFormat,
    Workers,
    complete_preset,
)
from vggrepro.recipe import PRESETS


def prepare(
    source: Annotated[str, typer.Argument(help="demo, a folder, or a name such as imagenette.")] = "demo",
    to: Annotated[Path | None, typer.Option("--to", help="Folder to write (default: that of --data).")] = None,
    data: Data = DEFAULT_DATA,
    preset: Annotated[
        str | None,
        typer.Option(
            "--preset",
            metavar="NAME",
            autocompletion=complete_preset,
            help=f"Crop, width and recipe: {', '.join(PRESETS)} (default: paper; of the demo: demo).",
        ),
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Leave out unreadable images, and list them.")] = False,
    no_top5: NoTop5 = False,
    store_side: Annotated[
        int,
        typer.Option(
            "--store-side", min=0, help="Store training images with so many pixels on the shorter side; 0: as they are."
        ),
    ] = 0,
    val_only: Annotated[
        bool, typer.Option("--val-only", help="Only validation images: enough for nets that were trained elsewhere.")
    ] = False,
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
    from vggrepro.data.prepare import check_downloads
    from vggrepro.data.prepare import prepare as run_prepare
    from vggrepro.data.sources import open_source
    from vggrepro.system.progress import say

    opened = open_source(source, seed, downloads, val_only=val_only)
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
    counts = ", ".join(f"{count:,} {split}" for split, count in dataset.counts.items() if count)
    print(f"{dataset.folder}: {dataset.name}, {len(dataset.classes)} classes, {counts} images, preset {dataset.preset}")
    if dataset.subset:
        print(f"a subset: {dataset.subset}")


def dataset(
    data: Data = DEFAULT_DATA,
    verify: Annotated[bool, typer.Option("--verify", help="Compare every shard with its checksum.")] = False,
    sheet: Annotated[Path | None, typer.Option("--sheet", help="Write a PNG of sample images here.")] = None,
    workers: Workers = WORKERS,
    format_: AsJson = TableFormat.table,
) -> None:
    """Show what a prepared data set holds.

    Counts, class balance, sizes and formats, and what was left out.
    """
    from vggrepro.data import summary
    from vggrepro.data.dataset import load
    from vggrepro.report import terminal
    from vggrepro.report.records import json_text

    opened = load(data)
    if sheet is not None:
        summary.sheet(opened, sheet)
    shards = summary.verify(opened, workers) if verify else 0
    if format_ is TableFormat.json:
        about: dict[str, object] = {
            "folder": str(opened.folder),
            "name": opened.name,
            "preset": opened.preset,
            "classes": opened.classes,
        }
        about |= {"fingerprint": opened.fingerprint, "images": opened.counts, "subset": opened.subset or None}
        return print(json_text(about))
    terminal.print_lines(summary.notes(opened))
    terminal.print_table(summary.splits_table(opened))
    terminal.print_lines(["a class: images of one class; ranges: smallest–median–largest; sides: pixels"])
    if sheet is not None:
        print(f"samples: {sheet}")
    if verify:
        print(f"verified: {shards} shards are as they were written")
