"""Tests the paper's claims on the posteriors: each comparison on the same images (docs/claims.md says how).

The verdict of a comparison comes from exact McNemar tests of its top-1 and top-5 errors, or from score tests where the
claim has a margin. `verdicts` combines and corrects them; a claim's verdict comes from those of its comparisons.
`report/findings.py` puts them into words.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from vggrepro import paper
from vggrepro.results.conditions import conditions, shared
from vggrepro.results.gaps import not_run, not_used
from vggrepro.results.intervals import Comparison
from vggrepro.results.paper_claims import Claim, Pair, Side, claims
from vggrepro.results.scores import File, Scores
from vggrepro.results.verdicts import (
    CONTRADICTED,
    HOLDS,
    LARGER,
    MEASURES,
    NOT_RUN,
    UNDECIDED,
    Outcome,
    Tested,
    compared,
    decide_claim,
    judge,
    worded,
)
from vggrepro.system import advice

SO_FAR = "holds so far"  # "not decided" only because some comparisons were not run; all others hold
LARGEST = 144.0  # million weights of the "more shallow net"; the paper's nets have no more (Sect. 2.2)


@dataclass(frozen=True, slots=True)
class Finding:
    """A claim and what the tests found.

    `notes` say what is missing and how to get it, `conditions` how these runs differ from the paper's, and `training`
    how all runs do. `parameters`: see `_parameters`.
    """

    claim: Claim
    outcomes: tuple[Outcome, ...]
    verdict: str
    notes: tuple[str, ...] = ()
    conditions: tuple[str, ...] = ()
    training: tuple[str, ...] = ()
    parameters: dict[str, tuple[float, float, float]] = dataclasses.field(default_factory=dict)

    @property
    def word(self) -> str:
        """The verdict; `SO_FAR` in place of "not decided" if all comparisons that were run hold."""
        so_far = {outcome.verdict for outcome in self.outcomes} == {HOLDS, NOT_RUN}
        return SO_FAR if so_far and self.verdict == UNDECIDED else self.verdict

    @property
    def seeds(self) -> int:
        """The smallest number of seeds of a comparison; 0 if none was run."""
        return min((outcome.seeds for outcome in self.outcomes if outcome.tests), default=0)

    @property
    def standing(self) -> str:
        """`word`, with "one seed" beside it where the nets were trained once."""
        return worded(self.word, self.seeds)

    @property
    def deciding(self) -> Outcome | None:
        """The comparison that decides the verdict.

        If the claim is contradicted, the clearest one against it; otherwise the least clear one.
        """
        run = [outcome for outcome in self.outcomes if outcome.tests]
        against = [outcome for outcome in run if outcome.verdict == self.verdict in (CONTRADICTED, LARGER)]
        if against:
            return min(against, key=lambda outcome: (outcome.p_against, min(test.p_against for test in outcome.tests)))
        return max(run, key=lambda outcome: (outcome.p_for, min(test.p_for for test in outcome.tests)), default=None)


def evaluate_claims(scores: Scores) -> list[Finding]:
    """Tests the twelve claims on the posteriors of `scores`, each file read once.

    Raises:
        InputError: files of different images.
    """
    judged = judge(claims(), comparisons(scores))
    return [_finding(claim, outcomes, scores) for claim, outcomes in zip(claims(), judged, strict=True)]


def comparisons(scores: Scores) -> dict[Pair, dict[str, Comparison]]:
    """Every comparison of the claims whose posteriors are there, by every measure.

    Raises:
        InputError: files of different images.
    """
    pairs = [pair for claim in claims() for pair in claim.pairs]
    sides = list(dict.fromkeys(side.views for pair in pairs for side in (pair.first, pair.second)))
    scores.rank_rows(sides)
    ranks = [seed.ranks_of(sides) for seed in (scores, *scores.seeds)]
    measures = [name for name, best in MEASURES.items() if len(scores.dataset.classes) > best]
    return compared(pairs, ranks, measures)


def _finding(claim: Claim, outcomes: tuple[Outcome, ...], scores: Scores) -> Finding:
    if not claim.pairs:
        return _parameters(claim, scores)
    views = dict.fromkeys(view for pair in claim.pairs for side in (pair.first, pair.second) for view in side.views)
    having: dict[Scores, dict[File, None]] = {}
    for pair in (made.pair for made in outcomes if made.tests):
        for seed, files in scores.having([*pair.first.views, *pair.second.views]):
            having.setdefault(seed, {}).update(dict.fromkeys(files))
    return Finding(
        claim,
        outcomes,
        decide_claim([outcome.verdict for outcome in outcomes]),
        tuple([claim.remark] * bool(claim.remark) + _gaps(scores, tuple(views))),
        tuple(conditions(scores, [(seed, list(files)) for seed, files in having.items()])),
        shared(scores) if having else (),
    )


def _gaps(scores: Scores, views: Sequence[paper.View]) -> list[str]:
    """The posterior files that a claim lacks, and the commands that make them; for other seeds also their number."""
    files = [scores.file(view) for view in views]
    result = list(not_used(files, scores.commands))
    if missing := [file.view for file in files if not file.present]:
        result.append(not_run(missing, scores.commands))
    for seed in scores.seeds:
        lacks = [view for view in views if not seed.usable([view])]
        if lacks:
            with advice.among(seed.runs):
                commands = seed.commands(lacks)
            result.append(f"{seed.runs} lacks {len(lacks)} of this claim's {len(views)} posterior files: {commands}.")
    return result


def _parameters(claim: Claim, scores: Scores) -> Finding:
    """Claim 12: for each net of Table 2 the millions of parameters, counted at full size, as printed, and here."""
    geometry = scores.geometry
    counts = {
        line["net"]: (
            paper.Architecture(line["net"]).parameters / 1e6,
            float(line["parameters_millions"]),
            scores.architecture(line["net"]).parameters / 1e6,
        )
        for line in paper.published(2)
    }
    cheap = all(round(full) == printed and full <= LARGEST for full, printed, _ in counts.values())
    notes = [claim.remark]
    if (geometry.crop, geometry.width, len(scores.dataset.classes)) != (paper.CROP, 1.0, 1000):
        growth = 100 * (counts["E"][2] / counts["A"][2] - 1)
        notes.append(
            f"Of our nets ({len(scores.dataset.classes)} classes, crop {geometry.crop}, {geometry.widths}), E has "
            f"{growth:.0f} % more parameters than A: the FC layers, which A and E have alike, are a smaller part here."
        )
    return Finding(claim, (), HOLDS if cheap else CONTRADICTED, tuple(notes), parameters=counts)


def frame(findings: Sequence[Finding]) -> pd.DataFrame:
    """A line for each measure of each comparison: raw floats, NaN where not run or not printed.

    Columns: `claim`, `sentence`, `section`, `claim_verdict`, `first`, `second` (names of the sides), `expected` (of the
    first), `measure` (top-1, top-5, in %; parameters in millions), `first_ours`, `second_ours`, `difference` (first -
    second), `low`, `high` (its 95 % interval), `first_paper`, `second_paper`, `difference_paper`, `images`, `seeds`,
    `only_first`, `only_second` (images wrong in that one alone, summed over seeds), `margin` (points), `p` (of the
    measure), `p_holm` and `verdict` (of the comparison, both measures together), `counted` ("images" or "arithmetic"),
    `notes`. Verdicts of nets that were trained once say so: "contradicted, one seed".
    """
    records: list[dict[str, Any]] = []
    for finding in findings:
        claim = finding.claim
        head = {"claim": claim.number, "sentence": claim.sentence, "section": claim.section}
        head["claim_verdict"] = finding.standing
        counted = {"counted": "images" if claim.pairs else "arithmetic"}
        notes = {"notes": " ".join([*finding.notes, *finding.conditions, *finding.training])}
        for outcome in finding.outcomes:
            pair = outcome.pair
            names = {"first": pair.first.label, "second": pair.second.label, "expected": pair.kind.value}
            tests = {test.measure: test for test in outcome.tests}
            for measure in tests or MEASURES:
                values = _ours(tests[measure], outcome) if tests else {"verdict": NOT_RUN}
                records.append(head | names | {"measure": measure} | printed(pair, measure) | values | counted | notes)
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
                theirs = _paper_values(published, first_published, None)
                records.append(head | names | ours | theirs | counted | notes)
    columns = ["claim", "sentence", "section", "claim_verdict", "first", "second", "expected", "measure"]
    columns += ["first_ours", "second_ours", "difference", "low", "high"]
    columns += ["first_paper", "second_paper", "difference_paper", "images", "seeds", "only_first", "only_second"]
    made = pd.DataFrame.from_records(
        records, columns=[*columns, "margin", "p", "p_holm", "verdict", "counted", "notes"]
    )
    return made.astype(dict.fromkeys(("images", "seeds", "only_first", "only_second"), "Int64"))


def csv_text(findings: Sequence[Finding]) -> str:
    """`frame` as CSV with raw floats; `pandas.read_csv` reads it back."""
    return str(frame(findings).to_csv(index=False, lineterminator="\n"))


def _ours(test: Tested, outcome: Outcome) -> dict[str, Any]:
    made = test.comparison
    values: dict[str, Any] = {"first_ours": made.a, "second_ours": made.b, "difference": made.difference}
    values |= {"low": made.low, "high": made.high, "images": made.images, "seeds": made.seeds}
    values |= {"only_first": made.only_a, "only_second": made.only_b, "margin": test.margin}
    return values | {"p": test.p, "p_holm": outcome.p, "verdict": outcome.standing}


def printed(pair: Pair, measure: str) -> dict[str, float]:
    """The paper's numbers of a comparison: `first_paper`, `second_paper`, `difference_paper`; NaN if not printed."""

    def of(side: Side) -> float | None:
        return side.top1 if measure == "top-1" else side.top5

    return _paper_values(of(pair.first), of(pair.second), pair.gap if measure == "top-1" else None)


def _paper_values(first: float | None, second: float | None, gap: float | None) -> dict[str, float]:
    difference = round(first - second, 1) if first is not None and second is not None else gap
    values = {"first_paper": first, "second_paper": second, "difference_paper": difference}
    return {name: math.nan if value is None else value for name, value in values.items()}


def growth(finding: Finding) -> tuple[float, float]:
    """Claim 12: the millions of parameters that E has more than A, counted at full size and as printed."""
    (full, published, _), (first_full, first_published, _) = (finding.parameters[net] for net in ("E", "A"))
    return full - first_full, published - first_published
