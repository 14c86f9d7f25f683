"""Results on a terminal, at its width: a summary first, tables that fit, long notes below.

Only used if stdout is a terminal. In a pipe the commands print plain text.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import pandas as pd
from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.markdown import Markdown
from rich.rule import Rule
from rich.table import Table as Columns
from rich.text import Text

from vggrepro.report import findings, layout, markdown
from vggrepro.report.documents import Beside, Document
from vggrepro.report.grid import Field, Grid
from vggrepro.report.header import Header, header_of
from vggrepro.report.records import json_text
from vggrepro.results import claims
from vggrepro.results.beyond import BeyondTable
from vggrepro.results.claims import Finding
from vggrepro.results.columns import TOP1, Column, Kind, number, p_text, span
from vggrepro.results.tables import Table, letter
from vggrepro.results.verdicts import CONTRADICTED, HOLDS, LARGER, NOT_RUN, ONE_SEED, UNDECIDED
from vggrepro.runs.status import Status, counted
from vggrepro.system import advice
from vggrepro.system.progress import duration

COLOURS = {HOLDS: "green", CONTRADICTED: "red", LARGER: "red", UNDECIDED: "yellow", NOT_RUN: "dim"}
HEADINGS = {  # of code's names
    "top1_error": "top-1 error, %",
    "top5_error": "top-5 error, %",
    "difference": "Δ points",
    "only_first": "only 1st",
    "only_second": "only 2nd",
}
PAGE = "one page with figures and images, for a browser"
# Kinds of columns that a narrow table lacks, and what the line below it calls them.
NARROWER = {Kind.INTERVAL: "95 % intervals", Kind.DIFFERENCE: "Δ", Kind.GROUP: "groups of rows"}


def wanted() -> bool:
    """Whether to draw results: only if stdout is a terminal."""
    return sys.stdout.isatty()


def show(parts: Iterable[RenderableType], console: Console | None = None) -> None:
    """Prints the parts at the terminal's width, a blank line between two."""
    console = console or Console(highlight=False)
    for place, part in enumerate(parts):
        if place:
            console.print()
        console.print(part)


def show_or_print(parts: Iterable[Grid | Text]) -> None:
    """The parts on a terminal as `show` draws them, else as plain text."""
    if wanted():
        show(parts)
    else:
        print("\n\n".join(part.plain for part in parts))


# Lines and a small table of a command


def print_lines(lines: Sequence[str]) -> None:
    """Lines on stdout; on a terminal they are wrapped at words."""
    show_or_print([Text("\n".join(lines))])


def print_table(frame: pd.DataFrame, format_: str = "table") -> None:
    """A small table on stdout: with words and units on a terminal, as plain columns in a pipe, or as JSON."""
    if format_ == "json":
        print(json_text(frame))
        return
    frame = frame.map(lambda value: math.nan if value is None else value)
    if wanted():
        show([frame_grid(frame)])
        return
    print(frame.to_string(index=False, na_rep="–", float_format="{:.2f}".format))


def frame_grid(frame: pd.DataFrame) -> Grid:
    """A frame's rows; numbers to the right."""
    heads = [HEADINGS.get(str(name), str(name).replace("_", " ")) for name in frame]
    numeric = [pd.api.types.is_numeric_dtype(frame[name]) for name in frame]
    rows = [[_cell(value) for value in row] for row in frame.itertuples(index=False)]
    return rows_grid(heads, rows, [head for head, right in zip(heads, numeric, strict=True) if right])


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def rows_grid(heads: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[str] = ()) -> Grid:
    """Rows of text under headings, numbers under those in `right`; without headings if all are empty."""
    columns = list(zip(*rows, strict=True)) or [()] * len(heads)
    return Grid([Field(head, cells, head in right) for head, cells in zip(heads, columns, strict=True)])


def plan(
    parts: Iterable[tuple[str, Sequence[str], Sequence[Sequence[str]], Sequence[str]]],
) -> Iterator[RenderableType]:
    """What a command would do: each part's title, headings, rows and remarks."""
    for title, heads, rows, remarks in parts:
        grid = rows_grid(heads or [""] * max(map(len, rows)), rows, heads[1:])
        yield Group(Rule(title, align="left"), grid, *map(Text, remarks))


# The report


def report(made: Document, runs: Sequence[Status]) -> Iterator[RenderableType]:
    """The whole report: summary, claims in a line each, tables, results beyond the paper."""
    yield from summary(made, runs)
    for table in made.tables:
        fitted = _Fitted(layout.columns(table))
        yield _section(f"Table {table.number}", table.caption, [fitted], _notes(table))
    yield from sections([*made.nets, *made.beyond_tables])
    yield _where_next({"each claim's comparisons": advice.command("claims"), PAGE: _page(advice.command("report"))})


def finished(
    made: Document, runs: Sequence[Status], folder: Path, report: str, claims: str
) -> Iterator[RenderableType]:
    """The summary of a reproduction, and where to look next: its tables' folder, and the commands that show more."""
    yield from summary(made, runs)
    yield _where_next(
        {
            "Tables 1-7": report,
            PAGE: _page(report),
            "each claim's comparisons": claims,
            "the same numbers as CSV and Markdown": str(folder),
        }
    )


def _where_next(places: Mapping[str, str]) -> RenderableType:
    """What else there is, and its place or command, each in a line of its own."""
    lines = (Text(f"  {what}\n    {where}") for what, where in places.items())
    return Group(Text("Where to look next", style="bold"), *lines)


def _page(report: str) -> str:
    return f"{report} --format html > report.html"


def summary(made: Document, runs: Sequence[Status]) -> Iterator[RenderableType]:
    """The data and what is reduced, the best error beside chance, and the claims, a line each."""
    header = header_of(made.tables, made.dataset)
    yield Rule(header.title, align="left")
    yield Text(header.data)
    if header.lead:
        yield Group(Text(header.lead, style="yellow"), *map(Markdown, markdown.bullets(header.differences)))
    if header.caution:
        yield Text(header.caution, style="yellow")
    yield Text("\n".join([f"Nets: {counted(runs)}.", *_best(made, header)]))
    yield claim_lines(made.findings)


def _best(made: Document, header: Header) -> list[str]:
    """The smallest top-1 error of one net and of several, and the error of guessing."""
    lines = []
    for name, wanted in (("Best single net", (3, 4, 5)), ("Best fusion", (6,))):
        rows = [row for table in made.tables if table.number in wanted for row in _measured(table)]
        if rows:
            lines.append(f"{name}: {min(rows, key=itemgetter(0))[1]}")
    chance = f"Chance: {header.chance:.1f} % with {len(made.dataset.classes):,} classes."
    return [*lines, chance] if lines else ["No error yet: no run is evaluated.", chance]


def _measured(table: Table) -> Iterator[tuple[float, str]]:
    """Each measured row of a table: its top-1 error, and it in words."""
    for row in table.frame.to_dict("records"):
        if not math.isnan(row[TOP1]):
            error = f"{number(row[TOP1])} % top-1 error ({layout.uncertainty(row, TOP1)})"
            yield row[TOP1], f"{error}, {layout.row_name(row, table)}"


def claim_lines(found: Sequence[Finding]) -> RenderableType:
    """A line for each claim: number, sentence, verdict."""
    grid = Columns.grid(padding=(0, 1))
    grid.add_column(justify="right")
    grid.add_column(ratio=1)
    grid.add_column()
    for finding in found:
        verdict = Text(finding.standing, style=COLOURS[finding.verdict])
        grid.add_row(Text(str(finding.claim.number)), Text(finding.claim.sentence), verdict)
    return Group(Text(findings.counts(found), style="bold"), grid)


def claims_report(found: Sequence[Finding]) -> Iterator[RenderableType]:
    """The claims in a line each, then their comparisons, then how to read them."""
    yield claim_lines(found)
    yield Text(
        "Below, errors of the first and the second in %; "
        + ", ".join(f"{sign} {word}" for word, sign in layout.SIGNS.items())
    )
    frame, tested = claims.frame(found), findings.tested(found)
    for finding in found:
        lines = frame[frame["claim"] == finding.claim.number].to_dict("records")
        title = Text(f"{finding.claim.number}. {finding.claim.sentence}", style="bold")
        verdict = Text(f"{findings.tally(finding)} (Sect. {finding.claim.section})", style=COLOURS[finding.verdict])
        notes = map(Markdown, markdown.bullets(findings.remarks(finding, tested)))
        yield Group(title, verdict, _comparisons(lines), *notes)
    yield Markdown(findings.preface(found))


def _comparisons(lines: Sequence[dict[Any, Any]]) -> Grid:
    heads = ["first / second", "", "ours", "Δ ours, 95 %", "p Holm", "Δ paper", " "]
    rows = []
    for line in lines:
        both = f"{number(line['first_ours'])} / {number(line['second_ours'])}"
        difference = number(line["difference"], "+")
        if not math.isnan(line["low"]):
            difference += f" {span(line['low'], line['high'])}"
        theirs = number(line["difference_paper"], "+")
        sides = f"{line['first']} / {line['second']}"
        rows.append(
            [
                sides,
                line["measure"],
                both,
                difference,
                p_text(line["p_holm"]),
                theirs,
                layout.SIGNS[line["verdict"].removesuffix(ONE_SEED)],
            ]
        )
    return rows_grid(heads, rows, heads[2:6])


def power_report(frame: pd.DataFrame) -> Iterator[RenderableType]:
    """How likely each claim is shown (`findings.power_frame`), and what the numbers mean."""
    title, text = findings.POWER
    cells = findings.power_cells(frame).drop(columns="comparisons")
    heads = [str(name) for name in cells]
    yield Group(Rule(title, align="left"), rows_grid(heads, cells.to_numpy().tolist(), [heads[0], *heads[3:]]))
    yield Text(text)


def _notes(table: Table) -> list[str]:
    return [*table.remarks, *(f"({letter(place)}) {note}" for place, note in enumerate(table.notes))]


def sections(made: Iterable[BeyondTable]) -> Iterator[RenderableType]:
    """Tables beyond the paper's, each with its title, caption and notes."""
    for table in made:
        yield _section(table.title, table.caption, [_Fitted(table.columns)], table.notes)


def beside(made: Beside) -> Iterator[RenderableType]:
    """Two reproductions side by side: of each table the top-1 errors, and below them the top-5 errors."""
    yield Rule(made.title, align="left")
    yield Group(Markdown(made.about), Markdown(made.reading))
    for table in made.tables:
        labels = [column for column in table.columns if column.left]
        measures = dict.fromkeys(column.top for column in table.columns if not column.left)
        grids = [
            _Fitted([*labels, *(column for column in table.columns if column.top == measure)], {Kind.PAPER: "paper"})
            for measure in measures
        ]
        yield _section(table.title, table.caption, grids, table.notes)


def _section(title: str, caption: str, grids: Iterable[_Fitted], notes: Sequence[str]) -> RenderableType:
    return Group(Rule(title, align="left"), Text(caption), *grids, *map(Markdown, markdown.bullets(notes)))


class _Fitted:
    """A table of columns. A narrow terminal gets none of the first kind in `less`, then none of the next."""

    def __init__(self, columns: Sequence[Column], less: Mapping[Kind, str] = NARROWER) -> None:
        self.columns, self.less = columns, less

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        kept, left_out = list(self.columns), list[str]()
        for kind, name in self.less.items():
            if _columns_grid(kept).fits(options.max_width):
                break
            fewer = [column for column in kept if column.kind is not kind]
            left_out += [name] * (len(fewer) < len(kept))
            kept = fewer
        yield _columns_grid(kept)
        if left_out:
            yield Text(f"Not shown, as the terminal is narrow: {', '.join(left_out)}. --format md has all columns.")


def _columns_grid(columns: Sequence[Column]) -> Grid:
    return Grid([Field(column.heading, column.cells, not column.left, column.best) for column in columns])


# Runs


STATUS_NOTE = (
    "top-1 and top-5: error in % on one central crop, at Q = S, after the last epoch. Table 3 has another error, that "
    "of dense evaluation over the whole image:"
)


def status(rows: Sequence[Status], seeds: Mapping[Path, Sequence[Status]] | None = None) -> Iterator[Grid | Text]:
    """The runs as a tree, each under the run that it starts from; below, notes on unfinished runs.

    Each folder of another seed has one line.
    """
    heads = ["run", "state", "epoch", "rate", "top-1 %", "top-5 %", "images /s"]
    cells = [
        [
            " " * depth + row.run,
            row.state,
            _epochs(row),
            "–" if row.learning_rate is None else f"{row.learning_rate:.3g}",
            _percent(row.top1_error),
            _percent(row.top5_error),
            "–" if row.images_per_second is None else f"{row.images_per_second:,.0f}",
        ]
        for row, depth in _tree(rows)
    ]
    yield rows_grid(heads, cells, heads[2:])
    if told := [f"{row.run}: {_told(row)}" for row in rows if row.note]:
        yield Text("\n".join(told))
    if seeds:
        yield Text("\n".join(_other_seed(folder, states) for folder, states in seeds.items()))
    yield Text(f"{STATUS_NOTE}\n  {advice.command('evaluate')}")


def _other_seed(folder: Path, rows: Sequence[Status]) -> str:
    return f"{folder}: {counted(rows)}; to see them:\n  {advice.command('status', '--runs', str(folder))}"


def _tree(rows: Sequence[Status]) -> Iterator[tuple[Status, int]]:
    """The runs, each after the one that it starts from, and how many runs are above it."""
    names = {row.run for row in rows}

    def below(name: str | None, depth: int) -> Iterator[tuple[Status, int]]:
        for row in rows:
            if (row.starts_from if row.starts_from in names else None) == name:
                yield row, depth
                yield from below(row.run, depth + 1)

    return below(None, 0)


def _epochs(row: Status) -> str:
    return "–" if row.epochs_done is None else f"{row.epochs_done:.3g}/{row.epochs or '?'}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"


def _told(row: Status) -> str:
    left = "" if row.seconds_left is None else f"; {duration(row.seconds_left)} left"
    age = "" if row.checkpoint_age is None else f"; last checkpoint {duration(row.checkpoint_age)} ago"
    return f"{row.note}{left}{age}"
