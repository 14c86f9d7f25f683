"""The page's sections as HTML. A section is empty if there is nothing to show in it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from vggrepro.paper import View
from vggrepro.posteriors.protocol import LABELS
from vggrepro.report import findings, layout
from vggrepro.report.header import Header
from vggrepro.report.page.contents import Contents
from vggrepro.report.page.drawings import SHOWN, Drawing, agreement_frame, rank_correlation
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
from vggrepro.report.page.mistakes import class_words
from vggrepro.results import claims
from vggrepro.results.answers import BINS
from vggrepro.results.beyond import BeyondTable
from vggrepro.results.claims import Finding
from vggrepro.results.columns import DASH, TOP1, number, p_text, span
from vggrepro.results.tables import Table, letter
from vggrepro.results.verdicts import CONTRADICTED, HOLDS, LARGER, NOT_RUN, UNDECIDED

CLASSES = {
    HOLDS: "holds",
    CONTRADICTED: "contradicted",
    LARGER: "contradicted",
    UNDECIDED: "open",
    NOT_RUN: "unrun",
}
CLAIMS = (
    "A claim holds if all its comparisons hold. It is contradicted if one comparison is significantly the other way. "
    "Otherwise it is not decided. Each claim shows the comparison that decides: the one least in its favour.",
    "Δ is the error of the first minus that of the second, in points, with its 95 % interval. Below zero, the first "
    "errs less.",
    "p belongs to one test. p after Holm is corrected for all tests of this page, and the verdict uses it. The "
    "interval is not corrected: it can lie beside zero although the claim is not decided.",
    "One seed: each net was trained once. Trained again with another seed, it may differ by more than the interval.",
)

UNBROKEN = "\u00a0%"  # stays on the line of its number


def section(name: str, title: str, body: str) -> str:
    """A section with its heading."""
    return f'<section id="{name}" aria-labelledby="{name}-h">\n<h2 id="{name}-h">{title}</h2>\n{body}\n</section>'


def grid(drawn: Sequence[Drawing], kind: str = "") -> str:
    """Figures as cards; the width of the page decides how many are in a row."""
    cards = [figure(one.draw(), one.name, one.title, one.caption, one.alt) for one in drawn]
    return f'<div class="grid {kind}">{"".join(cards)}</div>' if cards else ""


def summary(contents: Contents) -> str:
    """How all runs differ from the paper's; then the data, the runs and the claims in a line, and the best numbers."""
    header = contents.header
    parts = [_warning(header)] if header.lead else []
    lead = (
        f"<b>{escape(contents.dataset.name)}</b>: {header.size}. Guessing has a top-1 error of "
        f"{header.chance:.1f}&nbsp;%. Nets: {contents.states}.{_seeds(contents)}"
    )
    links = f'{_claim_counts(contents)} <a href="#words">What the words mean</a>'
    return "\n".join([*parts, f'<p class="lead">{lead}</p>', _tiles(contents), f"<p>{links}</p>"])


def _warning(header: Header) -> str:
    """How to compare the numbers, and how data and nets are smaller than the paper's; the training is folded away."""
    shown, body = header.differences[: len(header.reductions)], ""
    if shown:
        first = f"<b>This is a reduced reproduction.</b> {escape(header.caution)} What is smaller than in the paper:"
        body = f"<p>{first}</p>{bullets(shown)}"
    if header.training:
        folded = "<summary>How all runs differ from the paper's in training</summary>"
        body += f"<details>{folded}{bullets(header.training)}</details>"
    return f'<aside class="note">{body}</aside>'


def _seeds(contents: Contents) -> str:
    """Which seeds there are, and which one the parts on single nets show; nothing with one seed."""
    scores = contents.scores
    if not scores.seeds:
        return ""
    names = [each.name for each in (scores, *scores.seeds)]
    return escape(
        f" Errors and claims are over {len(names)} seeds ({', '.join(names)}). The parts on single nets (training, "
        f"first layer, classes, mistakes, provenance) show {scores.name}."
    )


def _claim_counts(contents: Contents) -> str:
    return f'<a href="#claims">{findings.counts(contents.document.findings)}</a>'


def _tiles(contents: Contents) -> str:
    """Our best rows of Tables 3-6, for one net and for several, and the rank correlation with the paper's rows."""
    tiles = []
    for name, numbers in (("Best single net", (3, 4, 5)), ("Best fusion of nets", (6,))):
        rows = [(row, table) for table in map(contents.table, numbers) for row in table.frame.to_dict("records")]
        rows = [pair for pair in rows if not math.isnan(pair[0][TOP1])]
        if rows:
            tiles.append(_best_tile(name, *min(rows, key=lambda pair: pair[0][TOP1]), contents.header))
    points = agreement_frame(contents)
    if not math.isnan(rho := rank_correlation(points)):
        lines = ("Order of the rows, ours and the paper's", minus(f"{rho:.2f}"), "rank correlation (Spearman)",
                 f"over {len(points)} rows; 1 is the same order, 0 is none in common")  # fmt: skip
        tiles.append(_tile("#agreement", *lines))
    return f'<div class="tiles">{"".join(tiles)}</div>' if tiles else ""


def _best_tile(name: str, row: dict[Any, Any], table: Table, header: Header) -> str:
    """A row's top-1 error beside that of guessing and, on the paper's images, beside the paper's of the same row."""
    ends = layout.uncertainty(row, TOP1)
    beside = f"guessing among {len(header.dataset.classes):,} classes: {header.chance:.1f} %"
    if header.comparable:
        beside += f"; the paper's same row: {number(row[f'{TOP1}_paper'])} %"
    name = f"{name}, top-1 error"
    return _tile(f"#table{table.number}", name, f"{number(row[TOP1])} %", beside, ends, layout.row_name(row, table))


def _tile(link: str, name: str, value: str, *lines: str) -> str:
    told = "".join(f"<span>{escape(line.replace(' %', UNBROKEN))}</span>" for line in lines)
    return f'<a class="tile" href="{link}"><span>{escape(name)}</span><strong>{escape(value)}</strong>{told}</a>'


def claims_section(found: Sequence[Finding], forest: str) -> str:
    """How many claims hold, the figure of all claims, how to read it, and each claim with its comparisons."""
    frame = claims.frame(found)
    claims_tested = findings.tested(found)
    cards = [_claim(finding, frame[frame["claim"] == finding.claim.number], claims_tested) for finding in found]
    tests = "".join(map(paragraph, findings.preface(found).split("\n\n")))
    reading = f"{bullets(CLAIMS)}<details><summary>How the tests work</summary>{tests}</details>"
    lead = f'<p class="lead">{escape(findings.counts(found))}</p>'
    return f'{lead}<div class="beside">{forest}<div>{reading}</div></div>\n<ol class="claims">{"".join(cards)}</ol>'


def _claim(finding: Finding, lines: pd.DataFrame, tested: int) -> str:
    claim, word = finding.claim, finding.verdict
    sign = f'<span aria-hidden="true">{layout.SIGNS[word]}</span> {finding.standing}'
    heads = ("comparison", "measure", "ours", "Δ ours, 95 %", "the paper", "Δ paper", "p", "p after Holm", "verdict")
    rows = [_comparison(row) for row in lines.to_dict("records")]
    table = plain_table(heads, rows, f"Comparisons of claim {claim.number}", heads[2:8])
    parts = [
        f'<h3>{claim.number}. {escape(claim.sentence)} <span class="muted">Sect. {escape(claim.section)}</span></h3>',
        f'<p class="verdict {CLASSES[word]}">{sign}</p>',
        f'<p class="decides">{prose(_decisive(finding))}</p>',
        f"<details><summary>{_extent(finding, len(rows))}</summary>{table}",
        bullets([*findings.remarks(finding, tested), *finding.conditions]),
        "</details>",
    ]
    return f"<li>{''.join(parts)}</li>"


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
    return minus(
        f"{outcome.pair.label}, {test.measure}: {number(made.difference, '+')} points "
        f"{span(made.low, made.high)}; the paper {number(theirs['difference_paper'], '+')}; "
        f"{_equation(test.p)} by this test alone, {_equation(outcome.p)} after Holm's correction."
    )


def _equation(p: float) -> str:
    """`p = 0.041` or `p < 0.001`, on one line."""
    text = p_text(p)
    return (f"p {text}" if text.startswith("<") else f"p = {text}").replace(" ", "\u00a0")


def _comparison(row: dict[Any, Any]) -> list[object]:
    """A line of `claims.frame` as cells."""
    both = [
        Number(row[f"first_{whose}"], _both(row[f"first_{whose}"], row[f"second_{whose}"]))
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
        Number(row["p"], p_text(row["p"])),
        Number(row["p_holm"], p_text(row["p_holm"])),
        row["verdict"],
    ]


def _both(first: float, second: float) -> str:
    return DASH if math.isnan(first) and math.isnan(second) else f"{number(first)} / {number(second)}"


def tables(made: Sequence[Table], header: Header) -> str:
    """Tables 1-7, each with its caption and footnotes."""
    ranks = not header.comparable
    parts = [paragraph(f"{minus(header.reading(ranks=ranks))} A click on a heading sorts.")]
    for table in made:
        notes = [f"<li>{prose(remark)}</li>" for remark in table.remarks]
        for place, note in enumerate(table.notes):
            mark = letter(place)
            notes.append(f'<li id="t{table.number}-{mark}"><b>({mark})</b> {prose(note)}</li>')
        listed = f'<ul class="notes">{"".join(notes)}</ul>' if notes else ""
        title = f"<h3>Table {table.number}</h3>{paragraph(table.caption)}"
        parts.append(f'<article id="table{table.number}">{title}{paper_table(table, ranks=ranks)}{listed}</article>')
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


def classes(contents: Contents, matrix: str) -> str:
    """Each class's error and its most frequent wrong answer, beside the matrix of all answers."""
    made = contents.answers
    if made is None:
        return ""
    frame, words = made.classes(contents.dataset), class_words(contents.dataset)
    names = dict(zip(contents.dataset.classes, words, strict=True))
    heads = ("class", "images", "top-1 error (%)", "95 %", "top-5 error (%)", "most often taken for")
    rows = [
        (
            names[row["class"]],
            Number(row["images"], f"{row['images']:,}"),
            Number(row["top1_error"], number(row["top1_error"])),
            Number(row["low"], span(row["low"], row["high"])),
            Number(row["top5_error"], number(row["top5_error"])),
            f"{names[row['taken_for']]} ({row['taken_for_images']:,})" if row["taken_for"] else DASH,
        )
        for row in frame.head(SHOWN).to_dict("records")
    ]
    part = "" if len(frame) <= SHOWN else f" The {SHOWN} classes of the largest error are shown."
    file = _named(made.view, contents)
    intro = (
        f"The answers of {file}, which has the smallest top-1 error of a single run at a single Q.{part} "
        "`vggrepro fuse` writes all classes and all pairs of them: `classes.csv`, `confusion.csv`."
    )
    table = plain_table(heads, rows, "Classes", heads[1:5], "classes")
    return f"{paragraph(intro)}{matrix}{table}"


def _named(view: View, contents: Contents) -> str:
    """A posterior file in words; with several seeds also the first seed's folder, which it is in."""
    seed = f", in {contents.scores.runs}" if contents.scores.seeds else ""
    return f"{view.run.name}, {LABELS[view.method]}, Q = {view.q}{seed}"


def calibration(contents: Contents, diagram: str) -> str:
    """Compares the net's confidence with its share of right answers."""
    made = contents.answers
    if made is None:
        return ""
    gap, file = made.confidence - made.right, _named(made.view, contents)
    lines = (
        f"{file}: its confidence, the posterior of its answer, is {made.confidence:.1f} % on average. "
        f"{made.right:.1f} % of its answers are right. So it is {abs(gap):.1f} points too "
        f"{'sure' if gap > 0 else 'unsure'} on average.",
        f"Expected calibration error: {made.calibration_error:.1f} points. It is the mean distance between confidence "
        f"and right answers, over {BINS} bins of equal width. Bins with few images make it larger than it really is.",
        "Dense and multi-crop evaluation average posteriors, which makes them less confident than those of one crop.",
        "`vggrepro fuse` writes the bins: `calibration.csv`.",
    )
    return f'<div class="beside">{diagram}<div>{bullets(lines)}</div></div>'


def mistakes(contents: Contents) -> str:
    """The most confident mistakes of one posterior file, with their images if the data set is there."""
    if not contents.mistakes or contents.answers is None:
        return ""
    words = class_words(contents.dataset)
    file = _named(contents.answers.view, contents)
    intro = (
        f"The wrong answers with the largest posteriors: {file}, which has the smallest "
        "top-1 error of a single run at a single Q. The number after a class is its posterior."
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
