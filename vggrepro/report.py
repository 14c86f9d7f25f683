"""Tables as documents: Markdown in the paper's look, tidy CSV, and both written to a folder.

How a table is laid out and its numbers rounded is `layout`'s.
"""

from __future__ import annotations

import math
import re
from collections.abc import Container, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from vggrepro import layout, paper
from vggrepro.errors import InputError
from vggrepro.files import write_text
from vggrepro.layout import Column
from vggrepro.progress import say
from vggrepro.protocol import SPLIT
from vggrepro.tables import Table, letter

if TYPE_CHECKING:
    from vggrepro.dataset import Dataset
    from vggrepro.extras import Extra

EXTRAS = ("curve", "crops", "shallow", "fusion", "pairs")  # what may stand beside the tables
ILSVRC = {"classes": 1000, "train": 1_281_167, "val": 50_000}  # Sect. 4: the data set of all published errors


def markdown(tables: Sequence[Table], dataset: Dataset, extras: Sequence[Extra] = (), claims: str = "") -> str:
    """The tables as one Markdown document that also reads well as plain text.

    `claims` is a section's Markdown, whose headings are put a level lower.
    """
    parts = [header(tables, dataset), *(table_markdown(table) for table in tables)]
    if extras:
        parts += ["## Beyond the paper", *(extra_markdown(extra) for extra in extras)]
    if claims:
        parts += ["## The paper's claims", re.sub("^#", "##", claims.strip(), flags=re.MULTILINE)]
    return "\n\n".join(parts) + "\n"


def extra_markdown(extra: Extra, level: int = 3) -> str:
    """One result beyond the paper: heading, caption, grid and notes."""
    grid = pipes(grid_of(extra.columns), [column.heading for column in extra.columns if column.left])
    parts = [f"{'#' * level} {extra.title}", extra.caption, grid]
    return "\n\n".join([*parts, "\n".join(f"- {note}" for note in extra.notes)] if extra.notes else parts)


def header(tables: Sequence[Table], dataset: Dataset) -> str:
    """Title, what the numbers were measured on, and how far that is from the paper."""
    val = dataset.counts[SPLIT]
    lines = [
        f"# VGG's tables on {dataset.name}",
        "",
        f"Data: {dataset.name}, {size(dataset)} (fingerprint {dataset.fingerprint[:12]}); preset {dataset.preset}.",
        "Numbers: ours, the paper's (arXiv 1409.1556v6) and Δ = ours - the paper's, errors in per cent; [low; high] is "
        "the 95 % interval of ours over images (Wilson), – not run (or not published), **bold** the best.",
    ]
    if reasons := reductions(tables, dataset):
        # The widest 95 % interval of a share, at one half: 1.96 sqrt(0.25 / n).
        margin = 98 / math.sqrt(max(val, 1))
        lines += [
            "",
            f"This is a reduced reproduction: {'; '.join(reasons)}.",
            "Compare the order of the rows with the paper's, not the errors themselves. With "
            f"{val:,} images, an error near 50 % is uncertain by ±{margin:.1f} points (95 %).",
        ]
    return "\n".join(lines)


def size(dataset: Dataset) -> str:
    """How many classes and images; a data set for evaluation alone has no training images to speak of."""
    train, val = dataset.counts.get("train", 0), dataset.counts[SPLIT]
    images = f"{train:,} training and {val:,}" if dataset.trainable else f"{val:,}"
    return f"{len(dataset.classes):,} classes, {images} validation images"


def reductions(tables: Sequence[Table], dataset: Dataset) -> list[str]:
    """In what the data and the nets are less than the paper's; empty for all of ILSVRC at full size.

    Without training images the nets were trained elsewhere, which their rows say.
    """
    result = []
    sizes = {"val": dataset.counts[SPLIT], "classes": len(dataset.classes)}
    if dataset.trainable:
        sizes["train"] = dataset.counts.get("train", 0)
    words = {"classes": "classes", "train": "training images", "val": "validation images"}
    for name, size in sorted(sizes.items()):
        if size != ILSVRC[name]:
            result.append(f"{size:,} {words[name]} (the paper: {ILSVRC[name]:,})")
    for crop, width, stride in dict.fromkeys((table.crop, table.width, table.stride) for table in tables):
        if crop != paper.CROP:
            pixels = f"S and Q stay in the paper's pixels, real lengths are {crop}/{paper.CROP} of them"
            if stride != paper.STRIDE:
                pixels += f"; {sum(paper.poolings(stride))} max-poolings, stride {stride}"
            if crop % stride:
                pixels += f"; {crop} is no multiple of {stride}, so dense evaluation meets positions that no crop had"
            result.append(f"crop {crop} (the paper: {paper.CROP}; {pixels})")
        if width != 1:
            result.append(f"width {width:g} (the paper: 1)")
    if dataset.subset:
        result.append(f"a subset: {dataset.subset.rstrip('.')}")
    return result


def table_markdown(table: Table) -> str:
    """One table: heading, caption, grid and footnotes."""
    left = [column.heading for column in layout.columns(table) if column.left]
    grid = pipes(display(table), left)
    parts = [f"## Table {table.number}", table.caption, grid]
    notes = [f"- {remark}" for remark in table.remarks]
    notes += [f"- ({letter(place)}) {note}" for place, note in enumerate(table.notes)]
    return "\n\n".join([*parts, "\n".join(notes)] if notes else parts)


def pipes(cells: pd.DataFrame, left: Container[str] = ()) -> str:
    """A Markdown table with its columns aligned for the eye; those named in `left` to the left."""
    columns = []
    for name, column in cells.items():
        texts = [str(name), *column]
        width = max(map(len, texts))
        rule = ":" + "-" * (width - 1) if name in left else "-" * (width - 1) + ":"
        padded = [text.ljust(width) if name in left else text.rjust(width) for text in texts]
        columns.append([padded[0], rule, *padded[1:]])
    return "\n".join(f"| {' | '.join(line)} |" for line in zip(*columns, strict=True))


def display(table: Table) -> pd.DataFrame:
    """The table's cells as text under one heading line: dashes for NaN, headings as `top-1 ours`, `**` for the best."""
    return grid_of(layout.columns(table))


def grid_of(columns: Sequence[Column]) -> pd.DataFrame:
    """Laid-out columns under one heading line, the best cells between `**`."""
    marked = {
        column.heading: [f"**{cell}**" if best else cell for cell, best in zip(column.cells, column.best, strict=True)]
        for column in columns
    }
    return pd.DataFrame(marked)


def explained(table: Table) -> pd.DataFrame:
    """The raw frame with footnote letters replaced by their texts; rows that ran get the remarks too."""
    frame = table.frame.copy()
    if "note" not in frame:
        return frame
    texts = {letter(place): note for place, note in enumerate(table.notes)}
    notes = []
    for marks, ran in zip(frame["note"], frame[table.measures[0]].notna(), strict=True):
        parts = [texts[mark] for mark in marks.split(", ") if mark]
        notes.append(" ".join([*parts, *table.remarks] if ran else parts))
    return frame.assign(note=notes)


def tidy(tables: Sequence[Table]) -> pd.DataFrame:
    """All tables in one long frame, a line a measure of a row.

    Columns: `table`, `row` (from 1, in the paper's order), the label columns (`net`, `S`, `Q`, `method`,
    `group`, `models`; empty where a table has none), `measure`, `ours`, `paper`, `difference`, `low` and `high` (the
    95 % interval of ours), and the remaining columns of the tables. Table 1 holds no numbers and is left out.
    """
    records: list[dict[str, Any]] = []
    labels = dict.fromkeys(("net", "S", "Q", "method", "group", "models"), "")
    for table in (table for table in tables if table.measures):
        measured = {f"{name}{end}" for name in table.measures for end in ("", "_paper", "_difference", "_low", "_high")}
        rest = [str(name) for name in table.frame if name not in {*measured, *table.labels}]
        for place, (_, line) in enumerate(explained(table).iterrows(), 1):
            start = {
                "table": table.number,
                "row": place,
                **labels,
                **{name: line[name] for name in table.labels},
            }
            for name in table.measures:
                record = {**start, "measure": name, "ours": line[name]}
                ends = ("paper", "difference", "low", "high")
                record |= {end: line.get(f"{name}_{end}", math.nan) for end in ends}
                records.append(record | {column: line[column] for column in rest})
    frame = pd.DataFrame.from_records(records)
    whole = ("parameters", "parameters_here", "images", "classes", "train_images")
    return frame.astype({name: "Int64" for name in whole if name in frame})


def csv_text(tables: Sequence[Table]) -> str:
    """`tidy` as CSV with raw floats; `pandas.read_csv` reads it back."""
    return str(tidy(tables).to_csv(index=False, lineterminator="\n"))


def write(tables: Sequence[Table], folder: Path, extras: Sequence[Extra] = ()) -> list[Path]:
    """Writes `table3.csv` … and the extras' `curve.csv` … (raw floats, explained notes) atomically.

    Files of extras that an earlier call wrote and this one does not make are removed.

    Returns:
        their paths.

    Raises:
        InputError: the folder is that of the paper's own numbers.
    """
    if folder.resolve() == paper.tables_folder().resolve():
        raise InputError(f"{folder} holds the paper's numbers; rename the data set or give --tables another folder")
    frames = {f"table{table.number}": explained(table) for table in tables}
    frames |= {extra.name: extra.frame for extra in extras}
    paths = []
    for name, frame in frames.items():
        paths.append(folder / f"{name}.csv")
        write_text(paths[-1], str(frame.to_csv(index=False, lineterminator="\n")))
    old = [path for name in EXTRAS if (path := folder / f"{name}.csv").exists() and path not in paths]
    for path in old:
        path.unlink()
    if old:
        say(f"removed from {folder}, as older than these tables: {', '.join(path.name for path in old)}")
    return paths
