"""The page's sections as HTML. A section is empty if what it shows is missing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from vggrepro.data import synsets
from vggrepro.data.dataset import Dataset
from vggrepro.posteriors.protocol import LABELS
from vggrepro.report import findings, layout
from vggrepro.report.header import Header
from vggrepro.report.page.contents import Contents, RunFacts
from vggrepro.report.page.drawings import Drawing
from vggrepro.report.page.html import (
    Number,
    bullets,
    column_table,
    escape,
    figure,
    minus,
    paper_table,
    paragraph,
    plain_table,
    prose,
)
from vggrepro.results import claims
from vggrepro.results.beyond import BeyondTable
from vggrepro.results.claims import Finding
from vggrepro.results.columns import TOP1, number, p_text, span
from vggrepro.results.tables import Table, letter
from vggrepro.results.verdicts import CONTRADICTED, HOLDS, LARGER, NOT_RUN, UNDECIDED, worded

CLASSES = {
    HOLDS: "holds",
    CONTRADICTED: "contradicted",
    LARGER: "contradicted",
    UNDECIDED: "open",
    NOT_RUN: "unrun",
}


def section(name: str, title: str, body: str) -> str:
    """A section with its heading."""
    return f'<section id="{name}" aria-labelledby="{name}-h">\n<h2 id="{name}-h">{title}</h2>\n{body}\n</section>'


def grid(drawn: Sequence[Drawing], kind: str = "") -> str:
    """Cards of figures, as many in a row as there is room for."""
    cards = [figure(one.draw(), one.name, one.title, one.caption, one.alt) for one in drawn]
    return f'<div class="grid {kind}">{"".join(cards)}</div>' if cards else ""


def summary(contents: Contents) -> str:
    """The data, how many runs there are and how many claims hold; the best numbers; how all runs differ."""
    header = contents.header
    name = escape(contents.dataset.name)
    lead = f"<b>{name}</b>: {header.size}. {_run_counts(contents.runs)} {_claim_counts(contents)}"
    parts = [f'<p class="lead">{lead}</p>', _tiles(contents)]
    if header.lead:
        body = f"<p>{escape(header.lead)}</p>{bullets(header.differences)}<p>{escape(header.caution)}</p>"
        parts.append(f'<aside class="note">{body}</aside>')
    return "\n".join(part for part in parts if part)


def _run_counts(runs: Sequence[RunFacts]) -> str:
    if not runs:
        return "No runs yet."
    states = [run.status.state for run in runs]
    counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return f"{len(runs)} run{'s' * (len(runs) > 1)}: {counts}."


def _claim_counts(contents: Contents) -> str:
    return f'<a href="#claims">{findings.counts(contents.document.findings)}</a>'


def _tiles(contents: Contents) -> str:
    """Our best row of Tables 3-6, of one net and of several, beside the paper's number for the same row."""
    tiles = []
    for name, numbers in (("Best single net", (3, 4, 5)), ("Best fusion", (6,))):
        rows = [(row, table) for table in map(contents.table, numbers) for row in table.frame.to_dict("records")]
        rows = [pair for pair in rows if not math.isnan(pair[0][TOP1])]
        if not rows:
            continue
        row, table = min(rows, key=lambda pair: pair[0][TOP1])
        ends = span(row[f"{TOP1}_low"], row[f"{TOP1}_high"])
        lines = (
            f"<span>{name}, top-1 error</span><strong>{row[TOP1]:.1f}&nbsp;%</strong>",
            f"<span>{ends}, the paper's same row {number(row[f'{TOP1}_paper'])} %</span>",
            f"<span>{escape(layout.row_name(row, table))}</span>",
        )
        tiles.append(f'<a class="tile" href="#table{table.number}">{"".join(lines)}</a>')
    return f'<div class="tiles">{"".join(tiles)}</div>' if tiles else ""


def claim_cards(found: Sequence[Finding], forest: str) -> str:
    """Each claim with its verdict and the comparison it rests on; below it, folded, all its comparisons."""
    frame = claims.frame(found)
    # On a wide screen the forest stands at the right, as tall as the text and the first cards at its left together.
    tested = sum(finding.deciding is not None for finding in found)
    left = max(0, (50 * tested - 90) // 160)  # cards at its left: its height in pixels less the text's, by a card's
    cards = [
        _claim(finding, frame[frame["claim"] == finding.claim.number], beside=place < left)
        for place, finding in enumerate(found)
    ]
    reading = "".join(map(paragraph, findings.preface(found).split("\n\n")))
    parts = f"<div>{reading}</div>{forest}\n<ol>{''.join(cards)}</ol>"
    return f'<div class="claims" style="--rows: {1 + left}">{parts}</div>'


def _claim(finding: Finding, lines: pd.DataFrame, *, beside: bool) -> str:
    claim, word = finding.claim, finding.verdict
    sign = f'<span aria-hidden="true">{layout.SIGNS[word]}</span> {finding.standing}'
    chip = f'<span class="verdict {CLASSES[word]}">{sign}</span>'
    heads = ("comparison", "measure", "ours", "Δ ours, 95 %", "the paper", "Δ paper", "p (Holm)", "verdict")
    rows = [_comparison(row) for row in lines.to_dict("records")]
    table = plain_table(heads, rows, f"Comparisons of claim {claim.number}", heads[2:7])
    parts = [
        f"<h3>{claim.number}. {escape(claim.sentence)}</h3>",
        f'<p>{chip} <span class="muted">Sect. {escape(claim.section)}</span></p>',
        paragraph(_decisive(finding)),
        f"<details><summary>{_extent(finding, len(rows))}</summary>{table}",
        bullets([*finding.notes, *finding.conditions]),
        "</details>",
    ]
    kind = ' class="beside"' if beside else ""
    return f"<li{kind}>{''.join(parts)}</li>"


def _extent(finding: Finding, lines: int) -> str:
    """How many comparisons and tests a claim has, and how many of which verdict if the verdicts differ."""
    count, tests = len(finding.outcomes) or lines, sum(len(outcome.tests) for outcome in finding.outcomes)
    text = f"{count} comparison{'s' * (count > 1)}" + (f" ({tests} test{'s' * (tests > 1)})" if tests else "")
    counts = findings.tally_counts(finding)
    return text + (f": {counts}" if counts else "")


def _decisive(finding: Finding) -> str:
    """The comparison that the verdict rests on, in a line."""
    outcome = finding.deciding
    test = outcome.deciding if outcome else None
    if finding.parameters:
        ours, printed = claims.growth(finding)
        return f"E against A: {ours:+.1f} million parameters; the paper {printed:+.0f}."
    if outcome is None or test is None:
        return ""
    made, theirs = test.comparison, claims.printed(outcome.pair, test.measure)
    p = p_text(outcome.p)
    equation = (f"p {p}" if p.startswith("<") else f"p = {p}").replace(" ", "\u00a0")  # on one line
    return minus(
        f"{outcome.pair.label}, {test.measure}: {number(made.difference, '+')} points "
        f"{span(made.low, made.high)}; the paper {number(theirs['difference_paper'], '+')}; "
        f"{equation}."
    )


def _comparison(row: dict[Any, Any]) -> list[object]:
    """A line of `claims.frame` as cells."""
    both = [
        Number(row[f"first_{whose}"], f"{number(row[f'first_{whose}'])} / {number(row[f'second_{whose}'])}")
        for whose in ("ours", "paper")
    ]
    difference = number(row["difference"], "+")
    if not math.isnan(row["low"]):
        difference += f" {span(row['low'], row['high'])}"
    return [
        f"{row['first']} against {row['second']}",
        row["measure"],
        both[0],
        Number(row["difference"], difference),
        both[1],
        Number(row["difference_paper"], number(row["difference_paper"], "+")),
        Number(row["p_holm"], p_text(row["p_holm"])),
        worded(row["verdict"], 0 if pd.isna(row["seeds"]) else int(row["seeds"])),
    ]


def tables(made: Sequence[Table], header: Header) -> str:
    """Tables 1-7, each with its caption and footnotes."""
    parts = [paragraph(f"{minus(header.reading())} A click on a heading sorts.")]
    for table in made:
        notes = [f"<li>{prose(remark)}</li>" for remark in table.remarks]
        for place, note in enumerate(table.notes):
            mark = letter(place)
            notes.append(f'<li id="t{table.number}-{mark}"><b>({mark})</b> {prose(note)}</li>')
        listed = f'<ul class="notes">{"".join(notes)}</ul>' if notes else ""
        title = f"<h3>Table {table.number}</h3>{paragraph(table.caption)}"
        parts.append(f'<article id="table{table.number}">{title}{paper_table(table)}{listed}</article>')
    return "\n".join(parts)


def beyond_tables(made: Sequence[BeyondTable], prefix: str = "") -> str:
    """Results beyond the paper as tables, or those of two reproductions, with a prefix to their names."""
    parts = []
    for table in made:
        name = f"{prefix}{table.name}"
        grid_ = column_table(table.columns, table.groups, table.title, name)
        title = f"<h3>{escape(table.title)}</h3>{paragraph(table.caption)}"
        parts.append(f'<article id="{name}">{title}{grid_}{bullets(table.notes)}</article>')
    return "\n".join(parts)


def class_words(dataset: Dataset) -> list[str]:
    """What people call each class: the first of its words. ILSVRC's classes have words even if the data has none."""
    words = synsets.words(dataset.classes) if dataset.words == dataset.classes else dataset.words
    return [(word or name).split(",")[0] for word, name in zip(words, dataset.classes, strict=True)]


def mistakes(contents: Contents) -> str:
    """The most confident mistakes of one posterior file, with their images if the data set is there."""
    view = contents.mistakes_of
    if not contents.mistakes or view is None:
        return ""
    words = class_words(contents.dataset)
    intro = (
        f"The wrong first classes with the largest posteriors: {view.run.name}, {LABELS[view.method]}, Q = {view.q}, "
        "which has the least top-1 error of a single run at a single Q. After each class stands its posterior."
    )
    cards = []
    for mistake, picture in zip(contents.mistakes, contents.pictures, strict=True):
        true, first = (escape(words[label]) for label in (mistake.label, mistake.predicted))
        image = f'<img src="{picture}" alt="{true}, taken for {first}">'
        lines = (
            f'<p><span class="muted">said</span> <b>{first}</b> {100 * mistake.posterior:.1f}&nbsp;%</p>',
            f'<p><span class="muted">is</span> <b>{true}</b> {100 * mistake.true_posterior:.1f}&nbsp;%</p>',
            f'<p class="key">{escape(mistake.key)}</p>',
        )
        cards.append(f"<li>{image if picture else ''}<div>{''.join(lines)}</div></li>")
    return f'{paragraph(intro)}<ul class="mistakes">{"".join(cards)}</ul>'
