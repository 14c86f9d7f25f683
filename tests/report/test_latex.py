"""LaTeX: booktabs structure, grouped headings, escapes; compiled where an engine is installed."""

from __future__ import annotations

import dataclasses
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from planted import WRONG, dataset_of, make_run, multi_scale, plant

from vggrepro.paper import S256, Run
from vggrepro.report import latex
from vggrepro.results import beyond, tables
from vggrepro.results.scores import Scores
from vggrepro.system.advice import Invocation, invocation


def test_table_3_by_line(tmp_path: Path) -> None:
    make_run(tmp_path, Run("A", S256), done=6)
    plant(tmp_path, Run("A", S256), 256, WRONG)
    lines = latex.latex(tables.tables_of(Scores(tmp_path, dataset_of()), [3]), dataset_of()).splitlines()
    start = lines.index(r"\begin{tabular}{@{}lllrrrrrrrr@{}}")
    assert lines[start + 1 : start + 7] == [
        r"\toprule",
        r"ConvNet config. & \multicolumn{2}{c}{smallest image side} & \multicolumn{4}{c}{top{-}1 val. error (\%)} & "
        r"\multicolumn{4}{c}{top{-}5 val. error (\%)} \\",
        r"\cmidrule(lr){2-3} \cmidrule(lr){4-7} \cmidrule(lr){8-11}",
        r" & train (S) & test (Q) & \multicolumn{1}{r}{ours} & \multicolumn{1}{r}{95 \%} & \multicolumn{1}{r}{paper} & "
        r"\multicolumn{1}{r}{$\Delta$} & \multicolumn{1}{r}{ours} & \multicolumn{1}{r}{95 \%} & "
        r"\multicolumn{1}{r}{paper} & \multicolumn{1}{r}{$\Delta$} \\",
        r"\midrule",
        r"A\textsuperscript{a} & 256 & 256 & 75.0 & {\scriptsize {[}30.1; 95.4{]}} & 29.6 & $+45.4$ & 25.0 & "
        r"{\scriptsize {[}4.6; 69.9{]}} & 10.4 & $+14.6$ \\",
    ]
    text = "\n".join(lines)
    assert text.count(r"\addlinespace") == 5  # between the six nets
    assert r"\textbf{25.5}" in text  # the paper's best
    assert r"\textsuperscript{a} Trained for 6 epochs (the paper: 74)." in text
    assert r"\texttt{vggrepro train A{-}LRN {-}{-}scale 256}" in text
    assert r"\documentclass" not in text


def test_every_row_of_all_tables_has_as_many_cells_as_its_heading(tmp_path: Path) -> None:
    multi_scale(tmp_path)
    text = latex.latex(tables.tables_of(Scores(tmp_path, dataset_of())), dataset_of())
    grids = re.findall(r"\\begin\{tabular\}\{@\{\}([^\n]*)@\{\}\}\n(.*?)\\end\{tabular\}", text, re.DOTALL)
    assert len(grids) == 7
    for kinds, body in grids:
        columns = len(re.findall(r"[lrc]|p\{.*?\}", re.sub(r">\{.*?\}(?=p)", "", kinds)))
        for line in (line for line in body.splitlines() if line.endswith(r"\\")):
            spans = [int(count) for count in re.findall(r"\\multicolumn\{(\d+)\}", line)]
            cells = len(re.split(r"(?<!\\)&", line))
            assert cells + sum(spans) - len(spans) == columns, line


def test_table_1_spans_what_is_common_and_table_6_names_its_groups() -> None:
    folder = Path("nowhere")
    one, two, six = latex.latex(tables.tables_of(Scores(folder, dataset_of()), [1, 2, 6]), dataset_of()).split(
        r"\end{table}"
    )[:3]
    assert one.count(r"\multicolumn{6}{c}{maxpool}") == 5
    assert r"\multicolumn{6}{c}{input 224 $\times$ 224 RGB}" in one
    assert r" & \textbf{LRN} & \textbf{conv3{-}64} & conv3{-}64" in one
    assert r"Network & A, A{-}LRN & B & C & D & E \\" in two
    assert r"\emph{ILSVRC submission}" in six
    assert r"\emph{post{-}submission}" in six
    assert r"{[}256;512{]}" in six


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("50 % of a_b & c#1 {x} $5 ~^\\", r"50 \% of a\_b \& c\#1 \{x\} \$5 \textasciitilde{}\textasciicircum{}"
         r"\textbackslash{}"),
        ("[256;512]", "{[}256;512{]}"),
        ("--dense", "{-}{-}dense"),
        ("3 × 3, Δ ±0.1 –", r"3 $\times$ 3, $\Delta$ $\pm$0.1 --"),
    ],
)  # fmt: skip
def test_escapes(text: str, escaped: str) -> None:
    assert latex.escape(text) == escaped


def test_commands_are_set_in_typewriter_and_a_lone_backtick_is_none() -> None:
    assert latex.prose("Run `a_b`, then `c`.") == r"Run \texttt{a\_b}, then \texttt{c}."
    assert latex.prose("a ` b") == "a ` b"


def test_the_document_compiles(tmp_path: Path) -> None:
    engine = shutil.which("pdflatex")
    if engine is None:
        pytest.skip("pdflatex is not installed")
    multi_scale(tmp_path / "runs")
    data = dataclasses.replace(dataset_of(), name="50%_of & [ä] #1 {x}~^\\", subset="a_b $ < > | \"quoted\" 'x'")
    scores = Scores(tmp_path / "runs", data)
    with invocation(Invocation([("--runs", "a_b c")])):
        made = tables.tables_of(scores)
    text = latex.latex(made, data, beyond.beyond_tables(scores), standalone=True)
    (tmp_path / "report.tex").write_text(text, encoding="utf-8")
    words = [engine, "-interaction=nonstopmode", "-halt-on-error", "report.tex"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-2000:]
    assert "Overfull" not in done.stdout
    assert (tmp_path / "report.pdf").stat().st_size > 10_000
