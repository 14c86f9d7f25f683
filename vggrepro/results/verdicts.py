"""From errors on the same images to verdicts: tests of the paper's comparisons, and the rules that combine them.

docs/claims.md gives the reasons. No files: ranks in, verdicts out. A p-value of one direction ("it is as claimed", "it
is not") is twice the one-sided one, so that each direction has half of the 5 %.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vggrepro.paper import View
from vggrepro.results import columns
from vggrepro.results.intervals import ALPHA, Comparison, Seeds, compare, holm, over_seeds, seeds_of
from vggrepro.results.paper_claims import MARGINS, Claim, Pair, Relation

HOLDS, CONTRADICTED, UNDECIDED, NOT_RUN = "holds", "contradicted", "not decided", "not run"
ONE_SEED = ", one seed"  # beside a verdict on nets that were trained once
LARGER = "larger than the paper's"  # "errs slightly less": less, but by more than the margin
# The measures that are tested; an image counts as wrong if its true class has this rank or a later one.
MEASURES = {columns.MEASURES[name].short: least for name, least in columns.ERRORS.items()}
BETTER = (Relation.LOWER, Relation.SLIGHTLY_LOWER)  # shown by top-1 or top-5; the other kinds by both


@dataclass(frozen=True, slots=True)
class Tested:
    """One comparison by one measure: `margin` in points, p-values of both directions, not yet corrected.

    `too_low`: the first errs less by more than the margin, which speaks against the claim.
    """

    measure: str
    comparison: Comparison
    margin: float | None
    p_for: float
    p_against: float
    kind: Relation
    too_low: bool = False

    @property
    def room(self) -> float:
        """How far the difference lies on the side that the test must show, in points; below zero it is on the other.

        Where the claim has a margin ("alike", "no less"), that side begins there.
        """
        difference, margin = self.comparison.difference, self.margin or 0.0
        if self.kind in BETTER:
            return -difference
        return margin + (difference if self.kind is Relation.NOT_LOWER else -abs(difference))

    @property
    def as_claimed(self) -> bool:
        """Whether the difference lies as the claim says, whatever the test says; "slightly less" ends at the margin."""
        too_much = self.kind is Relation.SLIGHTLY_LOWER and self.comparison.difference < -(self.margin or 0.0)
        return self.room > 0 and not too_much

    @property
    def p(self) -> float:
        """The p-value of the direction in which the errors lie: for "errs less", McNemar's two-sided one."""
        return min(self.p_for, self.p_against)


@dataclass(frozen=True, slots=True)
class Outcome:
    """A comparison, its tests (none if it was not run), its verdict, and p-values after all corrections."""

    pair: Pair
    tests: tuple[Tested, ...]
    verdict: str
    p_for: float = math.nan
    p_against: float = math.nan

    @property
    def seeds(self) -> int:
        """The seeds compared; 0 if it was not run."""
        return min((test.comparison.seeds for test in self.tests), default=0)

    @property
    def standing(self) -> str:
        """The verdict in words."""
        return worded(self.verdict, self.seeds)

    @property
    def p(self) -> float:
        """The corrected p-value that the verdict rests on; where it is not decided, that of the clearer direction."""
        return self.p_against if self.verdict in (CONTRADICTED, LARGER) else min(self.p_for, self.p_against)

    @property
    def deciding(self) -> Tested | None:
        """The test that the verdict rests on: the clearest one, or the least clear one where both must agree."""
        if not self.tests:
            return None
        if self.verdict in (CONTRADICTED, LARGER):
            return min(self.tests, key=lambda test: test.p_against)
        choose = min if self.pair.kind in BETTER else max
        return choose(self.tests, key=lambda test: test.p_for)


def worded(verdict: str, seeds: int) -> str:
    """The verdict, with "one seed" after it if its nets were trained once."""
    return f"{verdict}{ONE_SEED}" if seeds == 1 and verdict not in (UNDECIDED, NOT_RUN) else verdict


Comparisons = Mapping[Pair, Mapping[str, Comparison]]  # of each pair that was run, by measure


def compared(
    pairs: Iterable[Pair], ranks: Sequence[Mapping[tuple[View, ...], np.ndarray]], measures: Sequence[str]
) -> dict[Pair, dict[str, Comparison]]:
    """Every comparison whose ranks are given, by every measure, over the seeds that have both sides.

    `ranks`: of each seed, the (images,) ranks by the views of a side. The spread between seeds is pooled over the
    comparisons of one kind (`kind_of`) that have as many seeds: three seeds of one pair of nets say little about it.
    """
    result: dict[Pair, dict[str, Comparison]] = {}
    several: dict[tuple[str, str, int], dict[Pair, Seeds]] = {}
    for pair in dict.fromkeys(pairs):
        there = [of for of in ranks if pair.first.views in of and pair.second.views in of]
        for measure in measures if there else ():
            first, second = (
                [of[side.views] >= MEASURES[measure] for of in there] for side in (pair.first, pair.second)
            )
            result.setdefault(pair, {})
            if len(there) == 1:
                result[pair][measure] = compare(first[0], second[0])
            else:
                several.setdefault((kind_of(pair), measure, len(there)), {})[pair] = seeds_of(first, second)
    for (_, measure, _), of in several.items():
        for pair, comparison in pooled(of).items():
            result[pair][measure] = comparison
    return result


def pooled(of: Mapping[Pair, Seeds]) -> dict[Pair, Comparison]:
    """Comparisons of one kind by one measure over as many seeds each, with one variance between seeds for all."""
    runs = {view.run for pair in of for side in (pair.first, pair.second) for view in side.views}
    seeds = min(len(made.singles) for made in of.values())
    spread = float(np.mean([made.of_seeds for made in of.values()]))
    freedom = (seeds - 1) * max(1, len(runs) // 2)  # the number of pairs of nets that share no net
    return {pair: over_seeds(made, spread, freedom) for pair, made in of.items()}


def kind_of(pair: Pair) -> str:
    """What the sides differ in: comparisons of one kind vary alike from seed to seed."""
    first, second = ({view.run for view in side.views} for side in (pair.first, pair.second))
    if len(first) > 1 or len(second) > 1:
        return "ensembles"
    return "tests of a net" if first == second else "nets"


def judge(claims: Sequence[Claim], made: Comparisons) -> list[tuple[Outcome, ...]]:
    """The outcomes of each claim, corrected within the claim and over all claims of which some comparison was run.

    As claimed: all comparisons must hold, so the claim's p-value is the largest of theirs (an intersection-union test).
    Not so: one comparison is enough, so Holm's correction is over the claim's comparisons. Both then get Holm's
    correction over the claims.
    """
    tests = [{pair: tuple(_tested(pair, made[pair])) for pair in claim.pairs if pair in made} for claim in claims]
    run = [of for of in tests if of]
    for_ = [_within([_combined(pair.kind, [test.p_for for test in each]) for pair, each in of.items()]) for of in run]
    against = [holm([_either([test.p_against for test in each]) for each in of.values()]) for of in run]
    all_for, all_against = holm([max(ps) for ps in for_]), holm([min(ps) for ps in against])
    outcomes: dict[Pair, Outcome] = {}
    for place, of in enumerate(run):
        clearest = against[place].index(min(against[place]))
        for at, (pair, each) in enumerate(of.items()):
            p_for = min(len(run) * for_[place][at], all_for[place])
            p_against = all_against[place] if at == clearest else min(1.0, len(run) * against[place][at])
            outcomes[pair] = Outcome(pair, each, _verdict(each, p_for, p_against), p_for, p_against)
    return [tuple(outcomes.get(pair) or Outcome(pair, (), NOT_RUN) for pair in claim.pairs) for claim in claims]


def _within(ps: Sequence[float]) -> list[float]:
    """p-values corrected within a claim whose comparisons must all hold: no corrected one exceeds the largest given."""
    return [min(p, max(ps)) for p in holm(ps)]


def _either(ps: Sequence[float]) -> float:
    """The p-value if one measure is enough (Bonferroni)."""
    return min(1.0, len(ps) * min(ps))


def _combined(kind: Relation, ps: Sequence[float]) -> float:
    return _either(ps) if kind in BETTER else max(ps)


def _tested(pair: Pair, made: Mapping[str, Comparison]) -> Iterable[Tested]:
    for measure, comparison in made.items():
        margin = None if pair.kind is Relation.LOWER else MARGINS[measure] * comparison.b
        p_for, p_against, too_low = p_values(pair.kind, comparison, margin or 0.0)
        yield Tested(measure, comparison, margin, p_for, p_against, pair.kind, too_low)


def p_values(kind: Relation, made: Comparison, margin: float) -> tuple[float, float, bool]:
    """p-values that the difference is as claimed, and that it is not (at most 1); whether it is then too low.

    Args:
        kind: what is claimed of the first side.
        made: the comparison of both sides.
        margin: the difference that counts as none, in points.
    """
    below, above = made.below, made.above
    if kind is Relation.LOWER:
        p_for, p_against, too_low = below(0.0), above(0.0), False
    elif kind is Relation.NOT_LOWER:
        p_for, p_against, too_low = above(-margin), below(-margin), False
    elif kind is Relation.ALIKE:  # not alike on either side: twice the smaller
        p_for, p_against, too_low = max(above(-margin), below(margin)), 2 * min(below(-margin), above(margin)), False
    else:
        p_for, p_against, too_low = below(0.0), 2 * min(below(-margin), above(0.0)), below(-margin) < above(0.0)
    return min(1.0, 2 * p_for), min(1.0, 2 * p_against), too_low


def _verdict(tests: Sequence[Tested], p_for: float, p_against: float) -> str:
    """The verdict of a comparison by its corrected p-values."""
    if p_against < ALPHA:
        return LARGER if min(tests, key=lambda test: test.p_against).too_low else CONTRADICTED
    return HOLDS if p_for < ALPHA else UNDECIDED


def decide_claim(verdicts: Sequence[str]) -> str:
    """A claim's verdict from those of its comparisons: all must hold; one contradicted comparison contradicts it."""
    for verdict in (CONTRADICTED, LARGER):
        if verdict in verdicts:
            return verdict
    for verdict in (HOLDS, NOT_RUN):
        if all(word == verdict for word in verdicts):
            return verdict
    return UNDECIDED
