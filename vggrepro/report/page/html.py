"""Parts of the page: escaped text, tables that can be sorted, figures in the page's own colours."""

from __future__ import annotations

import html
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from matplotlib.figure import Figure

from vggrepro.report import style
from vggrepro.report.layout import columns, groups
from vggrepro.results.columns import DASH, Column, Kind
from vggrepro.results.tables import Table

# A figure's colours, and the page's names for them, which have other values on a dark background.
NAMES = {
    style.INK: "currentColor",
    style.MUTED: "var(--muted)",
    style.LINE: "var(--line)",
    style.GROUND: "var(--card)",
} | {light: f"var(--net-{net.lower() or 'fused'})" for net, (light, _) in style.COLOURS.items()}


def escape(text: object) -> str:
    """Any text as HTML shows it, in attributes too; bytes of file names that are no UTF-8 become `\\udcXX`."""
    plain = str(text).encode("utf-8", "backslashreplace").decode("utf-8")
    return html.escape(plain)


def prose(text: str) -> str:
    """A sentence of ours: escaped, words between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def minus(text: str) -> str:
    """Sets a true minus in negative numbers and differences, as the figures do; hyphens of names stay."""
    return re.sub(r"(?<!\w)-(?=\d)|(?<= )-(?= )", "−", text)


def paragraph(text: str) -> str:
    """A paragraph of prose; empty for empty text."""
    return f"<p>{prose(text)}</p>" if text else ""


def bullets(lines: Sequence[str]) -> str:
    """A list of prose; empty for no lines."""
    return f"<ul>{''.join(f'<li>{prose(line)}</li>' for line in lines)}</ul>" if lines else ""


def colour_variables(dark: bool) -> str:
    """CSS variables of the nets' colours."""
    return " ".join(f"--net-{net.lower() or 'fused'}: {pair[dark]};" for net, pair in style.COLOURS.items())


def inline_svg(figure: Figure, name: str, alt: str) -> str:
    """The figure as an SVG element that takes the page's font and colours.

    Args:
        figure: drawn by `report.figures` or `report.training_figures`.
        name: unique on the page; the prefix of all ids inside the SVG.
        alt: what it shows, for readers who cannot see it.
    """
    text = style.svg(figure)
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>\s*", "", text, flags=re.S)
    used = set(re.findall(r'(?:url\(#|href="#)([^)"]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda m: f' id="{name}-{m[1]}"' if m[1] in used else "", text)
    text = re.sub(r'(url\(#|href="#)', rf"\g<1>{name}-", text)
    text = re.sub(r"(: )(#[0-9a-f]{6})\b", lambda m: m[1] + NAMES.get(m[2], m[2]), text)
    head, rest = text.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None
    return f'<svg {box[0]} role="img" aria-label="{escape(alt)}" xmlns:xlink="http://www.w3.org/1999/xlink">{rest}'


def figure(figure: Figure, name: str, title: str, caption: str, alt: str) -> str:
    """A card with a figure, its title and its caption."""
    more = f" {prose(caption)}" if caption else ""
    picture = inline_svg(figure, name, alt)
    return f'<figure id="{name}">{picture}<figcaption><b>{escape(title)}</b>{more}</figcaption></figure>'


def scrolling(table: str, label: str) -> str:
    """A table in a box that scrolls sideways, by keyboard too."""
    return f'<div class="scroll" role="region" aria-label="{escape(label)}" tabindex="0">{table}</div>'


@dataclass(frozen=True, slots=True)
class Number:
    """A cell that shows `text` and sorts by `value`; NaN comes last."""

    value: float
    text: str

    @property
    def key(self) -> str:
        return "" if math.isnan(self.value) else f"{self.value:.6g}"


def plain_table(
    heads: Sequence[str], rows: Iterable[Sequence[object]], label: str, numeric: Iterable[str] = (), kind: str = ""
) -> str:
    """A sortable table. The first column names the row; columns in `numeric` are aligned to the right."""
    right = set(numeric)
    top = "".join(f'<th scope="col"{_class(head in right)}>{escape(head)}</th>' for head in heads)
    body = []
    for row in rows:
        cells = [
            _plain_cell(value, head, heads_row=place == 0, right=head in right)
            for place, (head, value) in enumerate(zip(heads, row, strict=True))
        ]
        body.append(f"<tr>{''.join(cells)}</tr>")
    whole = (
        f'<table class="sortable stacked {kind}"><thead><tr>{top}</tr></thead><tbody>{"".join(body)}</tbody></table>'
    )
    return scrolling(whole, label)


def _plain_cell(value: object, head: str, *, heads_row: bool, right: bool) -> str:
    sort = f' data-sort="{value.key}"' if isinstance(value, Number) else ""
    text = minus(value.text) if isinstance(value, Number) else str(value)
    if heads_row:
        return f'<th scope="row"{_class(right)}{sort}>{escape(text)}</th>'
    return f"<td{_named(head, text)}{_class(right)}{sort}>{escape(text)}</td>"


def _class(right: bool) -> str:
    return ' class="n"' if right else ""


def _named(heading: str, text: str) -> str:
    """The heading of a cell; a narrow screen shows it above the cell. It leaves out empty cells, which need none."""
    return "" if text in ("", DASH) else f' data-of="{escape(heading)}"'


def paper_table(table: Table, *, ranks: bool = False) -> str:
    """One of the paper's tables with its headings grouped as there; sortable unless its cells are layers.

    Args:
        table: the table.
        ranks: as of `layout.columns`.
    """
    made = columns(table, ranks=ranks)
    return column_table(made, groups(table), f"Table {table.number}", f"t{table.number}", sortable=not table.layers)


def column_table(made: Sequence[Column], starts: Sequence[str], label: str, name: str, *, sortable: bool = True) -> str:
    """Columns as an HTML table, with the rows of a group together.

    Args:
        made: the columns.
        starts: the group of each row.
        label: the table's name for readers who cannot see it.
        name: the table's class; footnote `a` is the element `<name>-a`.
        sortable: whether a click on a heading sorts; then the first column names the row.
    """
    lines = [f"<tr>{''.join(_cell(column, row, name, sortable and column is made[0]) for column in made)}</tr>"
             for row in range(len(starts))]  # fmt: skip
    body, place = [], 0
    for _, members in groupby(starts):
        count = len(list(members))
        body.append(f"<tbody>{''.join(lines[place : place + count])}</tbody>")
        place += count
    kind = f"sortable stacked {name}" if sortable else name
    return scrolling(f'<table class="{kind}"><thead>{_heads(made)}</thead>{"".join(body)}</table>', label)


def _heads(made: Sequence[Column]) -> str:
    """Two lines of heading; a column without a second line spans both."""
    first, second = [], []
    for top, members in groupby(made, key=lambda column: column.top):
        group = list(members)
        if len(group) == 1 and not (group[0].sub and top):
            first.append(_spanning(group[0], top or group[0].sub or group[0].heading))
        elif top:
            first.append(f'<th scope="colgroup" colspan="{len(group)}" class="group">{escape(top)}</th>')
            second += [f'<th scope="col"{_class(not c.left)}>{escape(c.sub)}</th>' for c in group]
        else:
            first += [_spanning(column, column.sub or column.heading) for column in group]
    return f"<tr>{''.join(first)}</tr>" + (f"<tr>{''.join(second)}</tr>" if second else "")


def _spanning(column: Column, text: str) -> str:
    return f'<th scope="col" rowspan="2"{_class(not column.left)}>{escape(text)}</th>'


def _cell(column: Column, row: int, name: str, heads_row: bool) -> str:
    text = escape(column.cells[row] if column.left else minus(column.cells[row]))
    if column.kind is Kind.NOTE:
        letters = [mark for mark in column.cells[row].split(", ") if mark]
        text = ", ".join(f'<a href="#{name}-{mark}">{mark}</a>' for mark in letters)
    if column.best[row]:
        text = f"<b>{text}</b>"
    kinds = [] if column.left else ["n"]
    kinds += [str(column.kind)] if column.kind in (Kind.INTERVAL, Kind.PAPER, Kind.OURS) else []
    attributes = f' class="{" ".join(kinds)}"' if kinds else ""
    attributes += f' data-sort="{_sort_key(column, row)}"' if not column.left else ""
    if heads_row:
        return f'<th scope="row"{attributes}>{text}</th>'
    return f"<td{_named(column.heading, column.cells[row])}{attributes}>{text}</td>"


def _sort_key(column: Column, row: int) -> str:
    """The number behind a cell, or the low end of an interval; empty for no number, which sorts last."""
    value = next(iter(column.raw.values()))[row]
    return Number(float(value) if isinstance(value, (int, float)) else math.nan, "").key
