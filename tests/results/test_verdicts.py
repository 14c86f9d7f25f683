"""Verdicts by hand and by simulation: planted errors, false verdicts at most 5 %, the stated power."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from vggrepro.paper import View
from vggrepro.results import intervals
from vggrepro.results.paper_claims import Kind, Pair, claims, margins
from vggrepro.results.verdicts import (
    CONTRADICTED,
    HOLDS,
    NOT_RUN,
    UNDECIDED,
    assess,
    decide,
    decide_claim,
    decide_pair,
    p_value,
)

Ranks = dict[tuple[View, ...], np.ndarray]


def pairs_of(*numbers: int) -> list[Pair]:
    return [pair for claim in claims() if claim.number in numbers for pair in claim.pairs]


def ranks_of(first: np.ndarray, second: np.ndarray, pair: Pair) -> Ranks:
    """Ranks of 1 where wrong: by top-1, never by top-5."""
    return {pair.first.views: first.astype(np.int32), pair.second.views: second.astype(np.int32)}


def planted(only_first: int, only_second: int, both: int, images: int) -> tuple[np.ndarray, np.ndarray]:
    """Wrong images of two sides with these counts."""
    number = np.arange(images)
    first = (number < only_first) | ((number >= only_first + only_second) & (number < only_first + only_second + both))
    second = (number >= only_first) & (number < only_first + only_second + both)
    return first, second


@pytest.mark.parametrize(
    ("kind", "difference", "p", "verdict"),
    [
        (Kind.LOWER, -2.0, 0.049, HOLDS),
        (Kind.LOWER, -2.0, 0.05, UNDECIDED),
        (Kind.LOWER, 2.0, 0.049, CONTRADICTED),
        (Kind.NOT_LOWER, 2.0, 0.01, HOLDS),
        (Kind.NOT_LOWER, -0.4, 0.01, HOLDS),
        (Kind.NOT_LOWER, -2.0, 0.01, CONTRADICTED),
        (Kind.NOT_LOWER, -2.0, 0.2, UNDECIDED),
        (Kind.ALIKE, 0.4, 0.01, HOLDS),
        (Kind.ALIKE, 2.0, 0.01, CONTRADICTED),
        (Kind.ALIKE, -2.0, 0.01, CONTRADICTED),
        (Kind.ALIKE, 0.0, 0.2, UNDECIDED),
    ],
)
def test_verdict_of_a_test(kind: Kind, difference: float, p: float, verdict: str) -> None:
    assert decide(kind, difference, 0.6, p) == verdict


def test_verdict_of_a_comparison() -> None:
    for kind in Kind:
        assert decide_pair(kind, []) == NOT_RUN
        assert decide_pair(kind, [HOLDS, CONTRADICTED]) == CONTRADICTED
        assert decide_pair(kind, [UNDECIDED]) == UNDECIDED
        assert decide_pair(kind, [HOLDS]) == decide_pair(kind, [HOLDS, HOLDS]) == HOLDS
    assert decide_pair(Kind.LOWER, [UNDECIDED, HOLDS]) == HOLDS
    assert decide_pair(Kind.ALIKE, [UNDECIDED, HOLDS]) == UNDECIDED
    assert decide_pair(Kind.NOT_LOWER, [UNDECIDED, HOLDS]) == UNDECIDED


def test_verdict_of_a_claim() -> None:
    assert decide_claim([HOLDS, HOLDS]) == HOLDS
    assert decide_claim([NOT_RUN, NOT_RUN]) == NOT_RUN
    assert decide_claim([HOLDS, NOT_RUN]) == decide_claim([UNDECIDED, HOLDS]) == UNDECIDED
    assert decide_claim([HOLDS, NOT_RUN, CONTRADICTED]) == CONTRADICTED


def test_the_nearest_margin_is_tested() -> None:
    above = intervals.compare(*planted(60, 20, 0, 2000))  # 2 points
    assert p_value(Kind.ALIKE, above, 0.6) == intervals.score_test(60, 20, 2000, 0.6)
    assert p_value(Kind.NOT_LOWER, above, 0.6) == intervals.score_test(60, 20, 2000, -0.6)
    assert p_value(Kind.LOWER, above, 0.0) == above.p
    # A p-value below 0.05 is an interval without the margin, wherever the difference lies.
    for only_first, only_second in itertools.product(range(0, 60, 7), repeat=2):
        made = intervals.compare(*planted(only_first, only_second, 100, 3000))
        free = not any(made.low <= bound <= made.high for bound in (-0.6, 0.6))
        assert (p_value(Kind.ALIKE, made, 0.6) < 0.05) == free


def test_a_comparison_that_two_claims_share_counts_once() -> None:
    shared = pairs_of(3)[0]
    assert shared in pairs_of(2)
    first, second = planted(10, 30, 5, 100)
    alone = assess([shared], ranks_of(first, second, shared), ["top-1"])[shared][0]
    twice = assess(pairs_of(2, 3), ranks_of(first, second, shared), ["top-1"])
    assert list(twice) == [shared]
    assert twice[shared][0] == alone
    assert alone.p == alone.holm == pytest.approx(intervals.mcnemar(10, 30))
    both = assess([shared], ranks_of(first, second, shared), ["top-1", "top-5"])[shared]
    assert [test.measure for test in both] == ["top-1", "top-5"]
    assert both[0].holm == pytest.approx(2 * alone.p)
    assert (both[1].comparison.a, both[1].p, both[1].verdict) == (0, 1, UNDECIDED)


@pytest.mark.slow
def test_false_verdicts_of_equal_nets_are_at_most_5_percent_in_the_family() -> None:
    """All nets err alike on images of different difficulty: no comparison of claims 3 to 11 may be decided."""
    rng = np.random.default_rng(1)
    pairs = pairs_of(3, 4, 6, 7, 8, 9, 10, 11)
    sides = list(dict.fromkeys(side.views for pair in pairs for side in (pair.first, pair.second)))
    wrong_reports, repeats = 0, 120
    for _ in range(repeats):
        difficulty = rng.beta(0.6, 1.4, 500)  # 30 % on average
        ranks = {views: (rng.random(500) < difficulty).astype(np.int32) for views in sides}
        tests = assess(pairs, ranks, ["top-1"])
        wrong_reports += any(test.verdict != UNDECIDED for made in tests.values() for test in made)
    assert wrong_reports <= 0.05 * repeats


def test_verdicts_have_the_stated_power() -> None:
    """A true difference as large as `detectable` says: found in 80 % of all samples, never the wrong way."""
    rng = np.random.default_rng(2)
    (pair,) = pairs_of(3)
    images, discordant = 1000, 12.0
    difference = intervals.detectable(images, discordant)
    shares = [(discordant - difference) / 200, (discordant + difference) / 200]
    counts = rng.multinomial(images, [*shares, 1 - sum(shares)], size=600)
    verdicts = []
    for only_first, only_second, _ in counts:
        ranks = ranks_of(*planted(only_first, only_second, 200, images), pair)
        verdicts.append(assess([pair], ranks, ["top-1"])[pair][0].verdict)
    assert verdicts.count(HOLDS) / len(verdicts) == pytest.approx(0.8, abs=0.045)  # 2.8 standard errors
    assert CONTRADICTED not in verdicts


@pytest.mark.parametrize("kind", [Kind.ALIKE, Kind.NOT_LOWER])
@pytest.mark.parametrize("beyond", [True, False])
def test_false_verdicts_about_margins_are_at_most_5_percent(kind: Kind, beyond: bool) -> None:
    """At the margin "alike" is wrong, a hair inside it "not alike" is: each at most 5 %."""
    rng = np.random.default_rng(3)
    images, discordant, margin = 5000, 8.0, margins()["top-1"]
    difference = -margin if beyond else -0.99 * margin
    shares = [(discordant + difference) / 200, (discordant - difference) / 200]
    false, samples = HOLDS if beyond else CONTRADICTED, 2000
    errors = 0
    for only_first, only_second, _ in rng.multinomial(images, [*shares, 1 - sum(shares)], size=samples):
        observed = 100 * (only_first - only_second) / images
        made = intervals.Comparison(images, 0, 0, observed, 0, 0, only_first, only_second, 1)  # all that is used
        errors += decide(kind, made.difference, margin, p_value(kind, made, margin)) == false
    assert errors / samples <= 0.05


def test_equal_nets_are_found_alike_with_enough_images() -> None:
    """Power of the margin: equal nets, 50,000 images, 12 % discordant (about ILSVRC's): nearly always."""
    rng = np.random.default_rng(4)
    pair = next(pair for pair in pairs_of(2) if pair.kind is Kind.ALIKE)
    found = 0
    for only_first, only_second, _ in rng.multinomial(50_000, [0.06, 0.06, 0.88], size=40):
        ranks = ranks_of(*planted(only_first, only_second, 9000, 50_000), pair)
        found += assess([pair], ranks, ["top-1"])[pair][0].verdict == HOLDS
    assert found >= 36
