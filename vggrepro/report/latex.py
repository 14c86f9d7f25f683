"""Tables as LaTeX: booktabs rules, the paper's grouped headings, the best numbers in bold.

Needs the packages booktabs, array and graphicx. pdfLaTeX compiles it as long as all names use European letters.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from vggrepro.report import layout
from vggrepro.report.header import Header, header_of
from vggrepro.results.columns import DASH, Column, Kind
from vggrepro.results.tables import Table, letter

if TYPE_CHECKING:
    from vggrepro.data.dataset import Dataset
    from vggrepro.results.beyond import BeyondTable

PACKAGES = ("booktabs", "array", "graphicx")
PREAMBLE = r"""\documentclass[a4paper]{article}
\usepackage[T1]{fontenc}
\usepackage[margin=2cm]{geometry}
\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}
\usepackage{booktabs,array,graphicx}
\setlength{\belowcaptionskip}{4pt}
\begin{document}
\sloppy"""
ESCAPES = str.maketrans({
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}",
    "|": r"\textbar{}", '"': r"\textquotedbl{}", "'": r"{'}",
    "[": "{[}", "]": "{]}",  # after \\ an opening bracket would be its argument
    "-": "{-}",  # two hyphens would become a dash
    "–": "--", "−": "$-$", "…": r"\dots{}", "×": r"$\times$", "±": r"$\pm$", "·": r"$\cdot$",
    "Δ": r"$\Delta$", "≤": r"$\leq$", "≥": r"$\geq$", "≈": r"$\approx$", "→": r"$\to$", "²": r"$^2$",
})  # fmt: skip
WIDE = dict.fromkeys(("combined ConvNet models", "runs"), r">{\raggedright\arraybackslash}p{6.5cm}")


def latex(
    tables: Sequence[Table], dataset: Dataset, beyond_tables: Sequence[BeyondTable] = (), standalone: bool = False
) -> str:
    """The tables as LaTeX floats; `standalone` makes a document that compiles."""
    parts = [_head(header_of(tables, dataset), standalone)]
    parts += [_float(table) for table in tables]
    parts += [_float_of_beyond(table) for table in beyond_tables]
    return "\n\n".join([*parts, r"\end{document}"] if standalone else parts) + "\n"


def _head(header: Header, standalone: bool) -> str:
    """The header as the beginning of a document, or as comments above the floats."""
    lines = [header.data, header.reading(), header.lead, *header.differences, header.caution]
    lines = [line for line in lines if line]
    if standalone:
        return f"{PREAMBLE}\n\\section*{{{escape(header.title)}}}\n" + "\n\n".join(map(prose, lines))
    title = f"{header.title}; needs \\usepackage{{{','.join(PACKAGES)}}}"
    return "\n".join(f"% {line}" for line in (title, *lines))


def escape(text: str) -> str:
    """Text that LaTeX prints as it stands."""
    return text.translate(ESCAPES)


def prose(text: str) -> str:
    """A sentence with `commands` between backticks, which are set in typewriter."""
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    return "".join(f"\\texttt{{{escape(part)}}}" if place % 2 else escape(part) for place, part in enumerate(parts))


def _float(table: Table) -> str:
    columns, groups = layout.columns(table), layout.groups(table)
    if table.layers:
        grid = _configurations(columns)
    elif table.sideways:
        grid = _sideways(columns)
    else:
        grid = tabular(columns, groups)
    notes = [prose(remark) for remark in table.remarks]
    notes += [f"\\textsuperscript{{{letter(place)}}} {prose(note)}" for place, note in enumerate(table.notes)]
    return _framed(f"VGG, Table {table.number}. {table.caption}", f"vgg{table.number}", grid, notes)


def _float_of_beyond(table: BeyondTable) -> str:
    notes = [prose(note) for note in table.notes]
    return _framed(f"{table.title}. {table.caption}", table.name, tabular(table.columns, table.groups), notes)


def _framed(caption: str, name: str, grid: list[str], notes: Sequence[str]) -> str:
    """A float: caption above, the grid shrunk to the line where it is wider, notes below."""
    lines = [r"\begin{table}[htbp]", r"\centering", f"\\caption{{{prose(caption)}}}", f"\\label{{tab:{name}}}"]
    lines += [r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%", *grid, "}"]
    if notes:
        lines += [r"\par\smallskip", r"\begin{minipage}{\linewidth}\footnotesize\raggedright"]
        lines += [" \\par\n".join(notes), r"\end{minipage}"]
    return "\n".join([*lines, r"\end{table}"])


def tabular(columns: Sequence[Column], groups: Sequence[str]) -> list[str]:
    """A booktabs tabular: two lines of heading, space between groups of rows.

    A column of groups becomes a line above each group. Footnote letters go to the first column.
    """
    titled = any(column.kind is Kind.GROUP for column in columns)
    marks = next((column.cells for column in columns if column.kind is Kind.NOTE), [""] * len(groups))
    columns = [column for column in columns if column.kind not in (Kind.NOTE, Kind.GROUP)]
    kinds = "".join(WIDE.get(column.top, "l" if column.left else "r") for column in columns)
    lines = [f"\\begin{{tabular}}{{@{{}}{kinds}@{{}}}}", r"\toprule", *_heading(columns), r"\midrule"]
    cells = [_set(column) for column in columns]
    previous = None
    for row, group in enumerate(groups):
        if group != previous:
            lines += [r"\addlinespace"] if previous is not None and len(groups) > len(set(groups)) else []
            lines += [f"\\multicolumn{{{len(columns)}}}{{@{{}}l}}{{\\emph{{{escape(group)}}}}} \\\\"] if titled else []
        previous = group
        texts = [column[row] for column in cells]
        if marks[row]:
            texts[0] += f"\\textsuperscript{{{marks[row]}}}"
        lines.append(" & ".join(texts) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _heading(columns: Sequence[Column]) -> list[str]:
    """The two heading lines: groups of columns over a rule, then each column; one line if there are no groups."""
    above, rules, start = [], [], 1
    for top, members in groupby(columns, key=lambda column: column.top):
        count = len(list(members))
        single = count == 1 and columns[start - 1].left
        above.append(escape(top) if single else f"\\multicolumn{{{count}}}{{c}}{{{escape(top)}}}")
        if top and count > 1:
            rules.append(f"\\cmidrule(lr){{{start}-{start + count - 1}}}")
        start += count
    below = [escape(column.sub) if column.left else f"\\multicolumn{{1}}{{r}}{{{escape(column.sub)}}}"
             for column in columns]  # fmt: skip
    if not any(column.sub for column in columns):
        return [" & ".join(above) + r" \\"]
    return [" & ".join(above) + r" \\", *([" ".join(rules)] if rules else []), " & ".join(below) + r" \\"]


def _set(column: Column) -> list[str]:
    """A column's cells: numbers with a true minus sign, the best bold, intervals small."""
    result = []
    for cell, best in zip(column.cells, column.best, strict=True):
        text = escape(cell)
        if cell[:1] in ("+", "-") and not column.left:
            text = f"${cell}$"
        elif column.kind is Kind.INTERVAL and cell != DASH:
            text = f"{{\\scriptsize {text}}}"
        result.append(f"\\textbf{{{text}}}" if best else text)
    return result


def _configurations(columns: Sequence[Column]) -> list[str]:
    """Table 1: what all nets share spans the columns, as in the paper."""
    count = len(columns)
    lines = [f"\\begin{{tabular}}{{@{{}}{'c' * count}@{{}}}}", r"\toprule"]
    lines += [f"\\multicolumn{{{count}}}{{c}}{{{columns[0].top}}} \\\\", r"\midrule"]
    lines += [" & ".join(escape(column.heading) for column in columns) + r" \\"]
    cells = [_set(column) for column in columns]
    for row in range(len(cells[0])):
        texts = [column[row] for column in cells]
        if len(set(texts)) > 1 or columns[0].cells[row].startswith("conv"):
            lines.append(" & ".join(texts) + r" \\")
            continue
        shared = f"\\multicolumn{{{count}}}{{c}}{{{texts[0]}}} \\\\"
        lines += (
            [r"\midrule", shared, r"\midrule"] if texts[0] == "maxpool" or texts[0].startswith("input") else [shared]
        )
    return [*lines, r"\bottomrule", r"\end{tabular}"]


def _sideways(columns: Sequence[Column]) -> list[str]:
    """Table 2: a column for each net, neighbouring nets of equal size together, as in the paper."""
    together = layout.equal_nets(columns)
    head = ["Network", *map(escape, together)]
    lines = [f"\\begin{{tabular}}{{@{{}}l{'r' * len(together)}@{{}}}}", r"\toprule", " & ".join(head) + r" \\"]
    lines.append(r"\midrule")
    for column in columns[1:]:
        name = f"{column.top}, {column.sub}" if column.top else column.sub
        texts = _set(column)
        lines.append(" & ".join([escape(name), *(texts[row] for row in together.values())]) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}"]
