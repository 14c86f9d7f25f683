"""The report as one Markdown document that also reads well as plain text."""

from __future__ import annotations

import re
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from vggrepro.report import layout
from vggrepro.report.header import Header, header_of
from vggrepro.results.columns import Column
from vggrepro.results.tables import Table, letter

if TYPE_CHECKING:
    from vggrepro.data.dataset import Dataset
    from vggrepro.results.beyond import BeyondTable


def markdown(
    tables: Sequence[Table],
    dataset: Dataset,
    nets: Sequence[BeyondTable] = (),
    beyond_tables: Sequence[BeyondTable] = (),
    claims: str = "",
) -> str:
    """Header, tables, the nets in numbers, results beyond the paper, claims.

    `claims` is a section's Markdown; its headings are put one level lower.
    """
    parts = [header_markdown(header_of(tables, dataset)), *(table_markdown(table) for table in tables)]
    if nets:
        parts += ["## The nets", *(beyond_markdown(table) for table in nets)]
    if beyond_tables:
        parts += ["## Beyond the paper", *(beyond_markdown(table) for table in beyond_tables)]
    if claims:
        parts += ["## The paper's claims", re.sub("^#", "##", claims.strip(), flags=re.MULTILINE)]
    return "\n\n".join(parts) + "\n"


def header_markdown(header: Header) -> str:
    """Title, what the numbers were measured on, and how far that is from the paper."""
    parts = [f"# {header.title}", f"{header.data}\n{header.reading('**bold**')}"]
    if header.lead:
        parts += [header.lead, *bullets(header.differences)]
    return "\n\n".join([*parts, header.caution] if header.caution else parts)


def beyond_markdown(table: BeyondTable, level: int = 3) -> str:
    """One result beyond the paper: heading, caption, grid and notes."""
    return _section(f"{'#' * level} {table.title}", table.caption, table.columns, table.notes)


def table_markdown(table: Table) -> str:
    """One table: heading, caption, grid and footnotes."""
    notes = [*table.remarks, *(f"({letter(place)}) {note}" for place, note in enumerate(table.notes))]
    return _section(f"## Table {table.number}", table.caption, layout.columns(table), notes)


def _section(heading: str, caption: str, columns: Sequence[Column], notes: Sequence[str]) -> str:
    grid = pipes(grid_of(columns), [column.heading for column in columns if column.left])
    return "\n\n".join([heading, caption, grid, *bullets(notes)])


def bullets(notes: Sequence[str]) -> list[str]:
    """The notes as one list; nothing without notes."""
    return ["\n".join(f"- {note}" for note in notes)] if notes else []


def pipes(cells: pd.DataFrame, left: Container[str] = ()) -> str:
    """A Markdown table, padded so that it is aligned as plain text too; columns named in `left` to the left."""
    columns = []
    for name, column in cells.items():
        texts = [str(name), *column]
        width = max(2, *map(len, texts))  # a rule has a dash and a colon
        rule = ":" + "-" * (width - 1) if name in left else "-" * (width - 1) + ":"
        padded = [text.ljust(width) if name in left else text.rjust(width) for text in texts]
        columns.append([padded[0], rule, *padded[1:]])
    return "\n".join(f"| {' | '.join(line)} |" for line in zip(*columns, strict=True))


def grid_of(columns: Sequence[Column]) -> pd.DataFrame:
    """The cells of the columns under one line of heading, the best cells between `**`."""
    marked = {
        column.heading: [f"**{cell}**" if best else cell for cell, best in zip(column.cells, column.best, strict=True)]
        for column in columns
    }
    return pd.DataFrame(marked)
