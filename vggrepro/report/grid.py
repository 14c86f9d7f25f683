"""A table on a terminal, as wide as the terminal allows: text is wrapped at words, numbers are not wrapped."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console, ConsoleOptions, JustifyMethod
from rich.table import Table
from rich.text import Text

HEADING_LINES = 2, 3  # over numbers: where there is room, and at most
LONGEST = 24  # characters of a word that are kept on one line


@dataclass(frozen=True, slots=True)
class Field:
    """A column: its heading, its cells, whether they are numbers, and which are bold (empty: none)."""

    heading: str
    cells: Sequence[str]
    number: bool = False
    best: Sequence[bool] = ()

    @property
    def least(self) -> int:
        """The smallest width in characters: no word and no number is divided."""
        if self.number:
            return self._beneath(HEADING_LINES[1])
        return min(self._longest, LONGEST)

    @property
    def hyphened(self) -> int:
        """The smallest width if words of text are divided at their hyphens."""
        if self.number:
            return self.least
        words = (word for text in (self.heading, *self.cells) for word in _words(text))
        return min(self.least, max(len(part) for word in words for part in _parts(word)))

    @property
    def most(self) -> int:
        """The largest width that is of use."""
        if self.number:
            return self._beneath(HEADING_LINES[0])
        return max(map(len, (self.heading, *self.cells)))

    @property
    def floor(self) -> int:
        """The smallest width if words in headings of numbers are divided."""
        return max(map(len, self.cells), default=1) if self.number else self.least

    @property
    def _longest(self) -> int:
        return max(len(word) for text in (self.heading, *self.cells) for word in _words(text))

    def _beneath(self, lines: int) -> int:
        """The smallest width of a column of numbers whose heading has at most `lines` lines."""
        width = max(self._longest, self.floor)
        while len(textwrap.wrap(self.heading, width)) > lines:
            width += 1
        return width


def _divided(text: str, width: int) -> str:
    """A text with a word that is too long for the width divided, at a hyphen if it has one."""
    return textwrap.fill(text, width) if max(map(len, _words(text))) > width else text


def _parts(word: str) -> list[str]:
    """What may stand on a line of its own: `multi-` and `crop`."""
    return textwrap.wrap(word, 1, break_long_words=False) or [word]


def _words(text: str) -> list[str]:
    """The words of a text; blanks at the beginning belong to the first."""
    return re.findall(r"^\s*\S+|\S+", text) or [""]


@dataclass(frozen=True, slots=True)
class Grid:
    """Columns as rich draws them; without a line of headings if all are empty."""

    fields: Sequence[Field]

    @property
    def plain(self) -> str:
        """The table as text for a pipe: a line for each row, two blanks between columns, headings first."""
        columns = [(field.heading, *field.cells) for field in self.fields]
        widths = [max(map(len, column)) for column in columns]
        sides = [">" if field.number else "<" for field in self.fields]
        lines = (
            "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True))
            for row in zip(*columns, strict=True)
        )
        return "\n".join(line.rstrip() for line in lines)

    def fits(self, width: int) -> bool:
        """Whether a terminal of so many characters shows it without words divided but at hyphens."""
        return sum(field.hyphened for field in self.fields) <= self._room(width)

    def _room(self, width: int) -> int:
        return width - 2 * len(self.fields)  # two blanks between columns, one at each side

    def _widths(self, width: int) -> list[int]:
        """The width of each column.

        If they do not fit, the headings of numbers get more lines, then text is wrapped, the widest column first. If
        words must be divided, they are at their hyphens first, then those in the headings of numbers.
        """
        room = max(self._room(width), len(self.fields))
        widths = [field.most for field in self.fields]
        if sum(widths) > room:
            widths = [field.least if field.number else field.most for field in self.fields]
        kinds = ([field.least for field in self.fields], [field.hyphened for field in self.fields])
        smallest = (*kinds, [field.floor for field in self.fields], [1] * len(widths))
        while sum(widths) > room:
            wide = next(
                places for floors in smallest
                if (places := [place for place, floor in enumerate(floors) if widths[place] > floor])
            )  # fmt: skip
            widths[max(wide, key=widths.__getitem__)] -= 1
        return widths

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table]:
        heads = any(field.heading for field in self.fields)
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", show_header=heads)
        cells = []
        for field, width in zip(self.fields, self._widths(options.max_width), strict=True):
            justify: JustifyMethod = "right" if field.number else "left"
            table.add_column(Text(_divided(field.heading, width)), width=width, justify=justify, overflow="fold")
            best = field.best or [False] * len(field.cells)
            texts = (_divided(cell, width) for cell in field.cells)
            cells.append([Text(text, "bold" if bold else "") for text, bold in zip(texts, best, strict=True)])
        for row in zip(*cells, strict=True):
            table.add_row(*row)
        yield table
