"""From errors on the same images to verdicts: tests of the paper's comparisons, and the rules that combine them.

docs/claims.md gives the reasons. No files: ranks in, verdicts out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vggrepro.paper import View
from vggrepro.results import columns
from vggrepro.results.intervals import ALPHA, Comparison, compare, holm, score_test
from vggrepro.results.paper_claims import Kind, Pair, margins

HOLDS, CONTRADICTED, UNDECIDED, NOT_RUN = "holds", "contradicted", "not decided", "not run"
# The measures that are tested; an image counts as wrong if its true class has this rank or a later one.
MEASURES = {columns.MEASURES[name].short: rank for name, rank in columns.ERRORS.items()}


@dataclass(frozen=True, slots=True)
class Tested:
    """One comparison by one measure: p-value before (`p`) and after (`holm`) the correction, `margin` in points."""

    measure: str
    comparison: Comparison
    margin: float | None
    p: float
    holm: float
    verdict: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """A comparison, its tests (none if it was not run) and its verdict."""

    pair: Pair
    tests: tuple[Tested, ...]
    verdict: str

    @property
    def deciding(self) -> Tested | None:
        """The test that the verdict rests on: the clearest one, or the least clear one where all must agree."""
        wanted = [test for test in self.tests if test.verdict == self.verdict] or list(self.tests)
        strongest = self.pair.kind is Kind.LOWER or self.verdict == CONTRADICTED
        ordered = sorted(wanted, key=strength)
        return (ordered[0] if strongest else ordered[-1]) if ordered else None


def strength(test: Tested | None) -> tuple[float, float]:
    """For sorting: the clearest test first."""
    return (test.holm, test.p) if test else (math.inf, math.inf)


def assess(
    pairs: Iterable[Pair], ranks: Mapping[tuple[View, ...], np.ndarray], measures: Sequence[str]
) -> dict[Pair, tuple[Tested, ...]]:
    """Tests every comparison whose ranks are given, by every measure, under one Holm correction.

    A comparison that occurs in several claims counts once.
    """
    compared: dict[tuple[Pair, str], Comparison] = {}
    for pair in pairs:
        if pair.first.views in ranks and pair.second.views in ranks:
            for measure in measures:
                best = MEASURES[measure]
                first, second = (ranks[side.views] >= best for side in (pair.first, pair.second))
                compared[pair, measure] = compare(first, second)
    margin = {key: None if key[0].kind is Kind.LOWER else margins()[key[1]] for key in compared}
    ps = {key: p_value(key[0].kind, made, margin[key] or 0.0) for key, made in compared.items()}
    adjusted = dict(zip(ps, holm(list(ps.values())), strict=True))
    result: dict[Pair, tuple[Tested, ...]] = {}
    for (pair, measure), made in compared.items():
        key = (pair, measure)
        word = decide(pair.kind, made.difference, margin[key] or 0.0, adjusted[key])
        result[pair] = (*result.get(pair, ()), Tested(measure, made, margin[key], ps[key], adjusted[key], word))
    return result


def p_value(kind: Kind, made: Comparison, margin: float) -> float:
    """The p-value of no difference, or of a difference as large as the margin: of two margins, the larger p-value."""
    if kind is Kind.LOWER:
        return made.p
    bounds = (-margin,) if kind is Kind.NOT_LOWER else (-margin, margin)
    return max(score_test(made.only_a, made.only_b, made.images, bound) for bound in bounds)


def decide(kind: Kind, difference: float, margin: float, p: float) -> str:
    """The verdict of one test; `difference` = first - second in points, `p` after the correction."""
    if p >= ALPHA:
        return UNDECIDED
    agrees = {Kind.LOWER: difference < 0, Kind.NOT_LOWER: difference > -margin, Kind.ALIKE: abs(difference) < margin}
    return HOLDS if agrees[kind] else CONTRADICTED


def decide_pair(kind: Kind, verdicts: Sequence[str]) -> str:
    """A comparison's verdict from its tests: "errs less" needs one of the measures, "errs alike" needs both."""
    if not verdicts:
        return NOT_RUN
    if CONTRADICTED in verdicts:
        return CONTRADICTED
    enough = any if kind is Kind.LOWER else all
    return HOLDS if enough(verdict == HOLDS for verdict in verdicts) else UNDECIDED


def decide_claim(verdicts: Sequence[str]) -> str:
    """A claim's verdict from those of its comparisons: all must hold; one contradicted comparison contradicts it."""
    if CONTRADICTED in verdicts:
        return CONTRADICTED
    for verdict in (HOLDS, NOT_RUN):
        if all(word == verdict for word in verdicts):
            return verdict
    return UNDECIDED
