"""Do the paper's claims hold here? Each is tested on the same images, pair by pair (docs/claims.md says how).

A comparison's verdict comes from exact McNemar tests of its top-1 and top-5 errors (a margin: from score tests), after
Holm's correction over all tests that ran; a claim's from those of its comparisons.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd

from vggrepro import layout, paper, report, tables
from vggrepro.conditions import conditions
from vggrepro.paper_claims import Claim, Kind, Pair, Side, claims, margins
from vggrepro.protocol import SPLIT
from vggrepro.shelf import File, Shelf
from vggrepro.statistics import ALPHA, Comparison, detectable
from vggrepro.verdicts import (
    CONTRADICTED,
    HOLDS,
    MEASURES,
    NOT_RUN,
    UNDECIDED,
    Outcome,
    Tested,
    assess,
    decide_claim,
    decide_pair,
    strength,
)

if TYPE_CHECKING:
    import numpy as np

SO_FAR = "holds so far"  # "not decided" only because comparisons were not run: those that were all hold
LARGEST = 144.0  # million weights: the "more shallow net" that the paper's are not larger than (Sect. 2.3)


@dataclass(frozen=True, slots=True)
class Finding:
    """A claim and what came of it. `notes` say what is missing and how to get it, `conditions` how the runs differ."""

    claim: Claim
    outcomes: tuple[Outcome, ...]
    verdict: str
    notes: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    parameters: dict[str, tuple[float, float, float]] = dataclasses.field(default_factory=dict)

    @property
    def standing(self) -> str:
        """The verdict in words: `SO_FAR` in place of "not decided" where it says more."""
        so_far = {outcome.verdict for outcome in self.outcomes} == {HOLDS, NOT_RUN}
        return SO_FAR if so_far and self.verdict == UNDECIDED else self.verdict

    @property
    def deciding(self) -> Outcome | None:
        """The comparison that the verdict rests on: the clearest against the claim, else the least clear one."""
        run = [outcome for outcome in self.outcomes if outcome.tests]
        wanted = [outcome for outcome in run if outcome.verdict == self.verdict] or run
        ordered = sorted(wanted, key=lambda outcome: strength(outcome.deciding))
        return (ordered[0] if self.verdict == CONTRADICTED else ordered[-1]) if ordered else None


def evaluate_claims(shelf: Shelf) -> list[Finding]:
    """Tests the twelve claims on the posteriors of `shelf`, each file read once.

    Raises:
        InputError: files of different images.
    """
    pairs = [pair for claim in claims() for pair in claim.pairs]
    sides = list(dict.fromkeys(side.views for pair in pairs for side in (pair.first, pair.second)))
    shelf.rank_rows(sides)
    ranks: dict[tuple[paper.View, ...], np.ndarray] = {}
    for views in sides:
        files = [shelf.file(view) for view in views]
        if all(file.present and not file.refused for file in files):
            ranks[views] = shelf.ranks(file.path for file in files)
    measures = [name for name, best in MEASURES.items() if len(shelf.dataset.classes) > best]
    tests = assess(dict.fromkeys(pairs), ranks, measures)
    return [_finding(claim, tests, shelf) for claim in claims()]


def _finding(claim: Claim, tests: dict[Pair, tuple[Tested, ...]], shelf: Shelf) -> Finding:
    if not claim.pairs:
        return _parameters(claim, shelf)
    outcomes = []
    for pair in claim.pairs:
        made = tests.get(pair, ())
        outcomes.append(Outcome(pair, made, decide_pair(pair.kind, [test.verdict for test in made])))
    views = dict.fromkeys(view for pair in claim.pairs for side in (pair.first, pair.second) for view in side.views)
    used = dict.fromkeys(
        view for made in outcomes if made.tests for side in (made.pair.first, made.pair.second) for view in side.views
    )
    return Finding(
        claim,
        tuple(outcomes),
        decide_claim([outcome.verdict for outcome in outcomes]),
        tuple([claim.remark] * bool(claim.remark) + _gaps(shelf, [shelf.file(view) for view in views])),
        tuple(conditions(shelf, [shelf.file(view) for view in used])),
    )


def _gaps(shelf: Shelf, files: Sequence[File]) -> list[str]:
    """What a claim lacks, and the commands that fill it."""
    result = []
    refused: dict[tuple[paper.Run, str], list[File]] = {}
    for file in files:
        if file.refused:
            refused.setdefault((file.view.run, file.refused), []).append(file)
    for (_, reason), group in refused.items():
        names = ", ".join([str(group[0].path), *(file.path.name for file in group[1:])])
        result.append(f"Not used: {names} ({reason}). Renew: {shelf.commands([file.view for file in group])}.")
    if missing := [file.view for file in files if not file.present]:
        result.append(f"Not run: {shelf.commands(missing)}.")
    return result


def _parameters(claim: Claim, shelf: Shelf) -> Finding:
    """Claim 12: Table 2's millions by name of the net, counted at full size, as printed, and of our nets here."""
    crop, width, stride = shelf.geometry()
    counts = {
        line["net"]: (
            paper.parameter_count(line["net"]) / 1e6,
            float(line["parameters_millions"]),
            paper.parameter_count(line["net"], len(shelf.dataset.classes), crop, width, stride) / 1e6,
        )
        for line in paper.published(2)
    }
    cheap = all(round(full) == printed and full <= LARGEST for full, printed, _ in counts.values())
    notes = [claim.remark]
    if (crop, width, len(shelf.dataset.classes)) != (paper.CROP, 1.0, 1000):
        growth = 100 * (counts["E"][2] / counts["A"][2] - 1)
        notes.append(
            f"Of our nets ({len(shelf.dataset.classes)} classes, crop {crop}, width {width:g}), E has {growth:.0f} % "
            "more parameters than A: the FC layers, which depth leaves alone, are a smaller part here."
        )
    return Finding(claim, (), HOLDS if cheap else CONTRADICTED, tuple(notes), parameters=counts)


def frame(findings: Sequence[Finding]) -> pd.DataFrame:
    """A line a measure of a comparison, raw floats, NaN where not run or not printed.

    Columns: `claim`, `sentence`, `section`, `claim_verdict`, `first`, `second` (names of the sides), `expected` (of the
    first), `measure` (top-1, top-5, in %; parameters in millions), `first_ours`, `second_ours`, `difference` (first -
    second), `low`, `high` (its 95 % interval), `first_paper`, `second_paper`, `difference_paper`, `images`,
    `only_first`, `only_second` (images wrong in that one alone), `margin`, `p`, `p_holm`, `verdict`, `notes`.
    """
    records: list[dict[str, Any]] = []
    for finding in findings:
        claim = finding.claim
        head = {"claim": claim.number, "sentence": claim.sentence, "section": claim.section}
        head["claim_verdict"] = finding.verdict
        notes = {"notes": " ".join([*finding.notes, *finding.conditions])}
        for outcome in finding.outcomes:
            pair = outcome.pair
            names = {"first": pair.first.label, "second": pair.second.label, "expected": pair.kind.value}
            tests = {test.measure: test for test in outcome.tests}
            for measure in tests or MEASURES:
                values = _ours(tests[measure]) if tests else {"verdict": NOT_RUN}
                records.append(head | names | {"measure": measure} | printed(pair, measure) | values | notes)
        for net, (full, published, _) in finding.parameters.items():
            first_full, first_published, _ = finding.parameters["A"]
            if net != "A":
                names = {
                    "first": net,
                    "second": "A",
                    "expected": "",
                    "measure": "parameters",
                    "verdict": finding.verdict,
                }
                ours = {"first_ours": full, "second_ours": first_full, "difference": full - first_full}
                theirs = _beside(published, first_published, None)
                records.append(head | names | ours | theirs | notes)
    columns = ["claim", "sentence", "section", "claim_verdict", "first", "second", "expected", "measure"]
    columns += ["first_ours", "second_ours", "difference", "low", "high"]
    columns += ["first_paper", "second_paper", "difference_paper", "images", "only_first", "only_second"]
    made = pd.DataFrame.from_records(records, columns=[*columns, "margin", "p", "p_holm", "verdict", "notes"])
    return made.astype(dict.fromkeys(("images", "only_first", "only_second"), "Int64"))


def csv_text(findings: Sequence[Finding]) -> str:
    """`frame` as CSV with raw floats; `pandas.read_csv` reads it back."""
    return str(frame(findings).to_csv(index=False, lineterminator="\n"))


def _ours(test: Tested) -> dict[str, Any]:
    made = test.comparison
    values: dict[str, Any] = {"first_ours": made.a, "second_ours": made.b, "difference": made.difference}
    values |= {"low": made.low, "high": made.high, "images": made.images}
    values |= {"only_first": made.only_a, "only_second": made.only_b, "margin": test.margin}
    return values | {"p": test.p, "p_holm": test.holm, "verdict": test.verdict}


def printed(pair: Pair, measure: str) -> dict[str, float]:
    """The paper's numbers of a comparison: `first_paper`, `second_paper`, `difference_paper`; NaN if not printed."""

    def of(side: Side) -> float | None:
        return side.top1 if measure == "top-1" else side.top5

    return _beside(of(pair.first), of(pair.second), pair.gap if measure == "top-1" else None)


def _beside(first: float | None, second: float | None, gap: float | None) -> dict[str, float]:
    difference = round(first - second, 1) if first is not None and second is not None else gap
    values = {"first_paper": first, "second_paper": second, "difference_paper": difference}
    return {name: math.nan if value is None else value for name, value in values.items()}


def document(findings: Sequence[Finding], shelf: Shelf) -> str:
    """The findings as a Markdown document of its own, with what they were measured on."""
    data = shelf.dataset
    lines = [f"# The paper's claims on {data.name}", "", _setting(shelf)]
    # Table 2 needs no posteriors; it only tells the geometry of the runs.
    if reasons := report.reductions([tables.table2(shelf)], data):
        lines += ["", f"This is a reduced reproduction: {'; '.join(reasons)}. A verdict says what holds here."]
    return "\n".join(lines) + "\n\n" + markdown(findings)


def _setting(shelf: Shelf) -> str:
    data = shelf.dataset
    return (
        f"Data: {data.name}, {data.counts[SPLIT]:,} validation images of {len(data.classes):,} classes (fingerprint "
        f"{data.fingerprint[:12]}); preset {data.preset}. The paper: arXiv 1409.1556v6."
    )


def markdown(findings: Sequence[Finding]) -> str:
    """How to read it and how much the images can tell, a table of the claims, then each claim's comparisons."""
    summary = report.pipes(pd.DataFrame([_summary(finding) for finding in findings]), left=("claim", "by", "verdict"))
    parts = [summary, preface(findings)]
    parts += [_details(finding) for finding in findings]
    told: dict[str, list[int]] = {}
    for finding in findings:
        for text in finding.conditions:
            told.setdefault(text, []).append(finding.claim.number)
    if told:
        lines = [f"- {text} (Claims {', '.join(map(str, numbers))}.)" for text, numbers in told.items()]
        parts += ["## How the runs differ from the paper's", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


def preface(findings: Sequence[Finding]) -> str:
    """What the columns mean, and the smallest difference that so many images can show with 80 % power."""
    bounds = margins()
    made = {(o.pair, test.measure): test for f in findings for o in f.outcomes for test in o.tests}
    lines = [
        "A claim holds if all its comparisons do, and is contradicted if one is significantly the other way; shown "
        "first is the comparison that decides. A test is one comparison by one measure, top-1 or top-5. Differences "
        "are first − second in points, negative where the first errs less, with 95 % intervals (Tango). p is of the "
        "exact McNemar test on the same images (where nets are to err alike, of a margin of "
        f"{bounds['top-1']} points top-1, {bounds['top-5']} top-5), after Holm's correction over "
        f"the {len(made)} tests that ran. The tests take the nets as they were trained, once each: a net trained again "
        "with another seed may differ by more."
    ]
    if made:
        lines.append(_sensitivity(list(made.values())))
    return "\n\n".join(lines)


def _sensitivity(tests: Sequence[Tested]) -> str:
    images = tests[0].comparison.images
    shares = sorted(test.comparison.discordant for test in tests if test.measure == "top-1")
    share = shares[len(shares) // 2]
    alone, strictest = detectable(images, share), detectable(images, share, ALPHA / len(tests))

    def words(points: float) -> str:
        return "none, however large," if math.isnan(points) else f"{points:.{1 if points >= 1 else 2}f} points"

    return (
        f"{images:,} images. In the median comparison {share:.1f} % of them are wrong (top-1) in one of the two alone; "
        f"there the smallest difference found with 80 % power is {words(alone)} by a test alone, {words(strictest)} at "
        "the correction's strictest step."
    )


def tally(finding: Finding) -> str:
    """The verdict in words, and where its comparisons differ how many of them have which."""
    counts = tally_counts(finding)
    return finding.standing + (f" (of {len(finding.outcomes)} comparisons: {counts})" if counts else "")


def tally_counts(finding: Finding) -> str:
    """How many of a claim's comparisons have which verdict, `2 contradicted, 1 holds`; nothing where all have one."""
    words = [outcome.verdict for outcome in finding.outcomes]
    counts = [counted(words.count(word), word) for word in sorted(set(words))]
    return ", ".join(counts) if len(counts) > 1 else ""


def counted(count: int, verdict: str) -> str:
    """`1 holds`, `2 hold`, `2 hold so far`, `3 not decided`."""
    return f"{count} {verdict if count == 1 else verdict.replace('holds', 'hold')}"


def _summary(finding: Finding) -> dict[str, str]:
    result = {"#": str(finding.claim.number), "claim": finding.claim.sentence}
    outcome = finding.deciding
    test = outcome.deciding if outcome else None
    if outcome and test:
        gap = layout.number(printed(outcome.pair, test.measure)["difference_paper"], "+")
        result |= {"by": f"{outcome.pair.label}, {test.measure}", "paper": gap, "ours": _difference(test.comparison)}
        result |= {"p (Holm)": p_text(test.holm)}
    elif finding.parameters:
        ours, theirs = growth(finding)
        result |= {"by": "E against A, million parameters", "paper": f"{theirs:+.0f}", "ours": f"{ours:+.1f}"}
        result |= {"p (Holm)": layout.DASH}
    else:
        result |= dict.fromkeys(("by", "paper", "ours", "p (Holm)"), layout.DASH)
    return result | {"verdict": tally(finding)}


def growth(finding: Finding) -> tuple[float, float]:
    """Claim 12: the millions of parameters that E has more than A, counted at full size and as printed."""
    (full, published, _), (first_full, first_published, _) = (finding.parameters[net] for net in ("E", "A"))
    return full - first_full, published - first_published


def _details(finding: Finding) -> str:
    """A claim's comparisons, a line a measure, and its notes."""
    claim = finding.claim
    left: tuple[str, ...] = ("comparison", "measure", "verdict")
    if finding.parameters:
        lines, left = _parameter_lines(finding), ("net",)
    else:
        any_ran = any(outcome.tests for outcome in finding.outcomes)
        lines = [line for outcome in finding.outcomes for line in _detail_lines(outcome, any_ran)]
    parts = [
        f"## {claim.number}. {claim.sentence}: {finding.standing}",
        f"Sect. {claim.section}.",
        report.pipes(pd.DataFrame(lines), left),
    ]
    return "\n\n".join([*parts, "\n".join(f"- {note}" for note in finding.notes)] if finding.notes else parts)


def _detail_lines(outcome: Outcome, any_ran: bool) -> list[dict[str, str]]:
    """The lines of one comparison; without the columns of tests where no comparison of the claim has one."""
    label = outcome.pair.label + ("" if outcome.pair.kind is Kind.LOWER else f" ({outcome.pair.kind})")
    lines = []
    tests = {test.measure: test for test in outcome.tests}
    for measure in tests or ["top-1"]:
        theirs = printed(outcome.pair, measure)
        errors = " / ".join(layout.number(theirs[name]) for name in ("first_paper", "second_paper"))
        line = {"comparison": label, "measure": measure, "paper": errors}
        line |= {"Δ paper": layout.number(theirs["difference_paper"], "+")}
        test = tests.get(measure)
        if test:
            made = test.comparison
            line |= {"ours": f"{layout.number(made.a)} / {layout.number(made.b)}", "Δ ours": _difference(made)}
            line |= {"alone wrong": f"{made.only_a:,} / {made.only_b:,}", "p": p_text(test.p)}
            line |= {"p (Holm)": p_text(test.holm)}
        elif any_ran:
            line |= dict.fromkeys(("ours", "Δ ours", "alone wrong", "p", "p (Holm)"), layout.DASH)
        lines.append({**line, "verdict": test.verdict if test else NOT_RUN})
    return lines


def _parameter_lines(finding: Finding) -> list[dict[str, str]]:
    return [
        {"net": net, "paper (M)": f"{published:.0f}", "ours at full size (M)": f"{full:.2f}", "here (M)": f"{here:.2f}"}
        for net, (full, published, here) in finding.parameters.items()
    ]


def _difference(made: Comparison) -> str:
    low, high = (round(end, 1) + 0.0 for end in (made.low, made.high))  # + 0.0: no -0.0
    return f"{layout.number(made.difference, '+')} {layout.span(low, high)}"


def p_text(p: float) -> str:
    """Three decimals, or that it is smaller."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
