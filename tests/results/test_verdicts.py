"""Verdicts by hand and by simulation: planted errors, false verdicts at most 5 %, the stated power."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from scipy import stats

from vggrepro.paper import View
from vggrepro.results import intervals, power
from vggrepro.results.intervals import Comparison
from vggrepro.results.paper_claims import MARGINS, Claim, Pair, Relation, claims
from vggrepro.results.verdicts import (
    CONTRADICTED,
    HOLDS,
    LARGER,
    NOT_RUN,
    UNDECIDED,
    Outcome,
    compared,
    decide_claim,
    judge,
    p_values,
)

Ranks = dict[tuple[View, ...], np.ndarray]


def claim_of(number: int) -> Claim:
    return next(claim for claim in claims() if claim.number == number)


def pairs_of(*numbers: int) -> list[Pair]:
    return [pair for claim in claims() if claim.number in numbers for pair in claim.pairs]


def counts(only_first: int, only_second: int, images: int, second: float = 30.0) -> Comparison:
    """A comparison with these discordant images; `second`: the second side's error in %."""
    difference = 100 * (only_first - only_second) / images
    return Comparison(images, second + difference, second, difference, 0, 0, only_first, only_second, 1)


def judged(number: int, *made: Comparison) -> tuple[Outcome, ...]:
    """The outcomes of one claim alone, by top-1, of its first comparisons."""
    claim = claim_of(number)
    (outcomes,) = judge([claim], {pair: {"top-1": one} for pair, one in zip(claim.pairs, made, strict=False)})
    return outcomes


@pytest.mark.parametrize(
    ("kind", "only_first", "only_second", "verdict"),
    [
        (Relation.LOWER, 20, 60, HOLDS),
        (Relation.LOWER, 60, 20, CONTRADICTED),
        (Relation.LOWER, 35, 40, UNDECIDED),
        (Relation.NOT_LOWER, 60, 20, HOLDS),
        (Relation.NOT_LOWER, 200, 205, HOLDS),
        (Relation.NOT_LOWER, 20, 200, CONTRADICTED),
        (Relation.NOT_LOWER, 400, 460, UNDECIDED),
        (Relation.ALIKE, 200, 205, HOLDS),
        (Relation.ALIKE, 200, 20, CONTRADICTED),
        (Relation.ALIKE, 20, 200, CONTRADICTED),
        (Relation.ALIKE, 900, 900, UNDECIDED),
        (Relation.SLIGHTLY_LOWER, 5, 40, HOLDS),
        (Relation.SLIGHTLY_LOWER, 20, 300, LARGER),
        (Relation.SLIGHTLY_LOWER, 60, 20, CONTRADICTED),
    ],
)
def test_verdict_of_a_comparison(kind: Relation, only_first: int, only_second: int, verdict: str) -> None:
    """10,000 images, the margin is 2.1 % of an error of 30 %: 63 images."""
    pair = dataclasses.replace(claim_of(3).pairs[0], kind=kind)
    claim = dataclasses.replace(claim_of(3), pairs=(pair,))
    ((outcome,),) = judge([claim], {pair: {"top-1": counts(only_first, only_second, 10_000)}})
    assert outcome.verdict == verdict


def test_verdict_of_a_claim() -> None:
    assert decide_claim([HOLDS, HOLDS]) == HOLDS
    assert decide_claim([NOT_RUN, NOT_RUN]) == NOT_RUN
    assert decide_claim([HOLDS, NOT_RUN]) == decide_claim([UNDECIDED, HOLDS]) == UNDECIDED
    assert decide_claim([HOLDS, NOT_RUN, CONTRADICTED]) == decide_claim([LARGER, CONTRADICTED]) == CONTRADICTED
    assert decide_claim([HOLDS, LARGER]) == LARGER


def test_the_nearest_margin_is_tested() -> None:
    above = counts(60, 20, 2000)  # 2 points
    upper, lower = (stats.norm.sf(abs(intervals.score(60, 20, 2000, margin))) for margin in (0.006, -0.006))
    assert p_values(Relation.ALIKE, above, 0.6) == pytest.approx((1, 4 * upper, False))
    assert p_values(Relation.NOT_LOWER, above, 0.6) == pytest.approx((2 * lower, 1, False))
    assert min(p_values(Relation.LOWER, above, 0.0)[:2]) == pytest.approx(intervals.mcnemar(60, 20))
    # "Alike" at 5 %: the 95 % interval lies within the margins.
    for only_first, only_second in itertools.product(range(0, 60, 7), repeat=2):
        ends = intervals.tango(only_first, only_second, 3000)
        inside = ends.low > -0.6 and ends.high < 0.6
        assert (p_values(Relation.ALIKE, counts(only_first, only_second, 3000), 0.6)[0] < 0.05) == inside


def test_all_comparisons_of_a_claim_must_hold_and_one_contradicts() -> None:
    """Claim 4 alone: no correction where all three hold; Holm's where one is enough."""
    clear, bare = counts(10, 90, 5000), counts(25, 43, 5000)
    p = intervals.mcnemar(25, 43)
    assert 0.03 < p < 0.05
    outcomes = judged(4, clear, bare, bare)
    assert [outcome.verdict for outcome in outcomes] == [HOLDS] * 3
    assert max(outcome.p for outcome in outcomes) == pytest.approx(p)
    against = judged(4, clear, clear, counts(43, 25, 5000))
    assert against[2].verdict == UNDECIDED
    assert against[2].p_against == against[2].p == pytest.approx(3 * p)  # that of the direction in which it lies


def test_top_1_and_top_5_are_combined() -> None:
    """ "Errs less": twice the smaller p-value; "errs no less": the larger."""
    first, second = counts(10, 30, 1000), counts(8, 22, 1000, 10)
    for number in (1, 3):
        claim = claim_of(number)
        (pair,) = claim.pairs
        ((outcome,),) = judge([claim], {pair: {"top-1": first, "top-5": second}})
        singles = [p_values(pair.kind, first, 0.021 * 30), p_values(pair.kind, second, 0.05 * 10)]
        expected = max(p for p, _, _ in singles) if number == 1 else 2 * min(p for p, _, _ in singles)
        assert outcome.p_for == pytest.approx(min(1, expected))


def test_holms_correction_is_over_the_claims_that_were_tested() -> None:
    made = {claim_of(3).pairs[0]: counts(10, 40, 5000), claim_of(5).pairs[0]: counts(10, 30, 5000)}
    tests = judge(claims(), {pair: {"top-1": one} for pair, one in made.items()})
    assert tests[2][0].p == pytest.approx(2 * intervals.mcnemar(10, 40))
    assert tests[4][0].p == pytest.approx(intervals.mcnemar(10, 30))


@pytest.mark.slow
def test_at_most_5_percent_of_pages_of_equal_nets_have_a_false_verdict() -> None:
    """All nets err alike on images of different difficulty: no claim but "alike" and "no less" may be decided."""
    rng = np.random.default_rng(1)
    tested = [claim_of(number) for number in range(3, 12)]
    pairs = [pair for claim in tested for pair in claim.pairs]
    sides = list(dict.fromkeys(side.views for pair in pairs for side in (pair.first, pair.second)))
    false, pages = 0, 300
    for _ in range(pages):
        difficulty = rng.beta(0.6, 1.4, 500)  # 30 % on average
        ranks = {views: (rng.random(500) < difficulty).astype(np.int32) for views in sides}
        made = judge(tested, compared(pairs, [ranks], ["top-1"]))
        false += any(decide_claim([one.verdict for one in outcomes]) != UNDECIDED for outcomes in made)
    assert false <= 0.05 * pages


def test_claims_at_the_edge_are_wrong_in_at_most_5_percent_of_pages() -> None:
    """Each claim has one comparison of no difference, all others are clear: the worst case of "all must hold"."""
    rng = np.random.default_rng(5)
    tested = [claim_of(number) for number in range(3, 12)]
    false, pages = 0, 1000
    for _ in range(pages):
        made = {pair: {"top-1": counts(20, 400, 5000)} for claim in tested for pair in claim.pairs}
        for claim in tested:
            first = int(rng.binomial(600, 0.5))
            made[claim.pairs[0]] = {"top-1": counts(first, 600 - first, 5000)}
        verdicts = [decide_claim([one.verdict for one in outcomes]) for outcomes in judge(tested, made)]
        false += any(word in (HOLDS, CONTRADICTED) for word in verdicts)
    assert false <= 0.05 * pages


def test_verdicts_have_the_stated_power() -> None:
    """A true difference as large as `detectable` says: found in 80 % of all samples, never the wrong way."""
    rng = np.random.default_rng(2)
    images, discordant = 1000, 12.0
    difference = intervals.detectable(images, discordant)
    shares = [(discordant - difference) / 200, (discordant + difference) / 200]
    drawn = rng.multinomial(images, [*shares, 1 - sum(shares)], size=600)
    verdicts = [judged(3, counts(first, second, images))[0].verdict for first, second, _ in drawn]
    assert verdicts.count(HOLDS) / len(verdicts) == pytest.approx(0.8, abs=0.045)  # 2.8 standard errors
    assert CONTRADICTED not in verdicts


@pytest.mark.parametrize("kind", [Relation.ALIKE, Relation.NOT_LOWER, Relation.SLIGHTLY_LOWER])
@pytest.mark.parametrize("beyond", [True, False])
def test_false_verdicts_about_margins_are_at_most_5_percent(kind: Relation, beyond: bool) -> None:
    """At the margin "alike" is wrong, a hair inside it "not alike" is: each at most 2.5 %, with an estimated margin."""
    rng = np.random.default_rng(3)
    images, discordant, both, share = 5000, 8.0, 20.0, MARGINS["top-1"]
    second = both + discordant / 2
    difference = -share * second * (1 if beyond else 0.99)
    parts = [(discordant + difference) / 200, (discordant - difference) / 200, both / 100]
    false, samples = {HOLDS} if beyond else {CONTRADICTED, LARGER}, 3000
    if kind is Relation.SLIGHTLY_LOWER and beyond:
        false = {CONTRADICTED}
    pair = dataclasses.replace(claim_of(3).pairs[0], kind=kind)
    claim = dataclasses.replace(claim_of(3), pairs=(pair,))
    errors = 0
    for first, only_second, wrong, _ in rng.multinomial(images, [*parts, 1 - sum(parts)], size=samples):
        made = counts(first, only_second, images, 100 * (only_second + wrong) / images)
        ((outcome,),) = judge([claim], {pair: {"top-1": made}})
        errors += outcome.verdict in false
    assert errors / samples <= 0.025 + 0.008  # 2.8 standard errors


def test_the_power_of_each_claim_grows_with_the_images() -> None:
    made = power.table([(2000, 1), (200_000, 1)], {claim_of(3).pairs[0]: {"top-1": counts(10, 20, 1000)}})
    assert made["claim"].tolist() == list(range(1, 12))
    assert (made["2000"] <= made["200000"]).all()
    assert made["shares"].tolist()[2:4] == ["runs", "table"]
    chances = made.set_index("claim")
    assert chances.loc[5, "2000"] > 95  # 7 points
    assert chances.loc[[1, 3, 4, 5, 6, 10, 11], "200000"].min() > 95


def test_the_power_over_seeds_agrees_with_a_t_test_of_the_seeds_means(monkeypatch: pytest.MonkeyPatch) -> None:
    """With endless images only the seeds' spread is left: claim 5 (7 points) against a simulated t test."""
    monkeypatch.setattr(power, "claims", lambda: [claim_of(5)])
    monkeypatch.setattr(power, "SPREADS", {"other nets": {"top-1": 3.5, "top-5": 3.5}})
    chance = power.table([(10**7, 3)], {}).loc[0, power.column(10**7, 3)]
    differences = np.random.default_rng(8).normal(-7.0, 3.5, (20_000, 3))
    p = stats.ttest_1samp(differences, 0, axis=1).pvalue
    expected = 100 * np.mean((p < 0.05) & (differences.mean(1) < 0))
    assert chance == pytest.approx(expected, abs=10)  # 2.8 standard errors of 200 pages


def of_seeds(rng: np.random.Generator, pairs: list[Pair], seeds: int, spread: float) -> list[Ranks]:
    """Ranks of equal nets, whose true errors vary from seed to seed by a standard deviation of `spread` (shares)."""
    images = 800
    difficulty = rng.beta(0.8, 1.6, images)
    sides = dict.fromkeys(side.views for pair in pairs for side in (pair.first, pair.second))
    return [
        {views: (rng.random(images) < difficulty + rng.normal(0, spread)).astype(np.int32) for views in sides}
        for _ in range(seeds)
    ]


def test_over_seeds_a_claim_is_wrong_in_at_most_5_percent_though_nets_vary() -> None:
    """Each seed's images alone would find differences; images and seeds together do not."""
    rng = np.random.default_rng(6)
    tested = [claim_of(number) for number in (3, 4, 5, 6)]
    pairs = [pair for claim in tested for pair in claim.pairs]
    false = {1: 0, 3: 0}
    pages = 150
    for _ in range(pages):
        ranks = of_seeds(rng, pairs, 3, 0.03)
        for seeds in false:
            judged_ones = judge(tested, compared(pairs, ranks[:seeds], ["top-1"]))
            false[seeds] += any(decide_claim([one.verdict for one in each]) != UNDECIDED for each in judged_ones)
    assert false[3] <= 0.05 * pages
    assert false[1] > 0.3 * pages  # the seed's luck


def test_over_seeds_by_hand() -> None:
    rng = np.random.default_rng(7)
    first, second = ([rng.random(400) < share for _ in range(3)] for share in (0.2, 0.3))
    made = intervals.over_seeds(intervals.seeds_of(first, second), spread=0.5, freedom=4)
    gaps = 100 * (np.array(first, float) - np.array(second, float))
    by_image, by_seed = gaps.mean(0).var(ddof=1) / 400, 0.5 / 3
    degrees = (by_image + by_seed) ** 2 / (by_seed**2 / 4 + by_image**2 / 399)
    error = (by_image + by_seed) ** 0.5
    assert (made.difference, made.seeds) == (pytest.approx(gaps.mean()), 3)
    assert (made.low, made.high) == pytest.approx(stats.t.interval(0.95, degrees, gaps.mean(), error))
    assert made.below(-1.0) == pytest.approx(stats.t.cdf((gaps.mean() + 1) / error, degrees))
    assert made.above(-1.0) == pytest.approx(1 - made.below(-1.0))
    assert intervals.seeds_of(first, second).of_seeds == pytest.approx(gaps.mean(1).var(ddof=1))


def test_a_tie_over_seeds_is_no_difference() -> None:
    """3, 2 and 1 of 7 images against 3, 1 and 2: the two means of the errors differ by rounding."""
    first, second = ([np.arange(7) < wrong for wrong in numbers] for numbers in ((3, 2, 1), (3, 1, 2)))
    made = intervals.over_seeds(intervals.seeds_of(first, second), spread=0.5, freedom=4)
    assert made.a != made.b and made.difference == 0.0


def test_as_many_images_as_needed_find_the_difference_with_a_chance_of_80_percent() -> None:
    """Against the exact power of McNemar's test: 10 claims, one measure, so a level of 5 % / 10."""
    found = power.needed(judged(3, counts(80, 100, 1000))[0], 10)
    assert found.seeds is None and found.images is not None
    assert found.times == pytest.approx(found.images / 1000, rel=1e-3)
    assert intervals.power(found.images, 18.0, 2.0, 0.05 / 10) == pytest.approx(0.8, abs=0.01)


def test_equal_answers_count_as_if_one_image_differed() -> None:
    """Without discordant images the variance would be 0."""
    alike = next(pair for pair in claim_of(2).pairs if pair.kind is Relation.ALIKE)
    found = []
    for only_first in (0, 1):
        made = {alike: {"top-1": dataclasses.replace(counts(only_first, 0, 100), difference=0.0)}}
        found.append(power.needed(next(o for o in judge([claim_of(2)], made)[0] if o.tests), 11))
    assert found[0].images == found[1].images and found[0].times == found[1].times
    assert found[0].images is not None and found[0].images > 100


def seeds_of_nets(rng: np.random.Generator, images: int, seeds: int, gap: float) -> Comparison:
    """Two nets: each gets some images wrong in every seed, others by chance; the difference varies between seeds."""
    always = [rng.random(images) < 0.02 for _ in range(2)]
    first, second = [], []
    for _ in range(seeds):
        first.append(always[0] | (rng.random(images) < 0.10))
        second.append(always[1] | (rng.random(images) < 0.10 + gap + rng.normal(0, 0.006)))
    made = intervals.seeds_of(first, second)
    return intervals.over_seeds(made, made.of_seeds, 1000)


def test_with_several_seeds_the_needed_numbers_agree_with_larger_samples() -> None:
    """The squared standard error at the needed images, and at the needed seeds, is the wanted one: measured anew."""
    rng = np.random.default_rng(3)
    small = [seeds_of_nets(rng, 4000, 4, 0.02) for _ in range(60)]
    middle = dataclasses.replace(
        small[0],
        difference=-1.2,
        error=float(np.sqrt(np.mean([made.error**2 for made in small]))),
        seeds_alone=float(np.mean([made.seeds_alone for made in small])),
        images_alone=float(np.mean([made.images_alone for made in small])),
    )
    found = power.needed(judged(3, middle)[0], 1)
    assert found.images is not None and found.seeds is not None
    wanted = (1.2 / (stats.norm.isf(0.025) + stats.norm.isf(0.2))) ** 2
    assert middle.error**2 > wanted
    for images, seeds in ((found.images, 4), (4000, found.seeds)):
        again = [seeds_of_nets(rng, images, seeds, 0.02).error ** 2 for _ in range(60)]
        assert np.mean(again) == pytest.approx(wanted, rel=0.15)


@pytest.mark.parametrize(
    ("number", "only_first", "only_second", "room"),
    [
        (3, 20, 60, 4.0),  # errs less
        (3, 60, 20, -4.0),
        (1, 60, 20, 4.0 + 2.1 * 0.3),  # errs no less: the margin is 2.1 % of 30 %
        (1, 20, 60, -4.0 + 2.1 * 0.3),
        (8, 20, 60, 4.0),  # errs slightly less
    ],
)
def test_room_is_how_far_the_difference_lies_on_the_claimed_side(
    number: int, only_first: int, only_second: int, room: float
) -> None:
    (test,) = judged(number, counts(only_first, only_second, 1000))[0].tests
    assert test.room == pytest.approx(room)


def test_errs_alike_has_room_on_both_sides_up_to_the_margin() -> None:
    alike = next(pair for pair in claim_of(2).pairs if pair.kind is Relation.ALIKE)
    rooms = []
    for only_first, only_second in ((50, 52), (52, 50), (50, 60)):
        made = {alike: {"top-1": counts(only_first, only_second, 1000)}}
        rooms += [outcome.tests[0].room for outcome in judge([claim_of(2)], made)[0] if outcome.tests]
    assert rooms == pytest.approx([0.63 - 0.2, 0.63 - 0.2, 0.63 - 1.0])
    assert power.needed(next(o for o in judge([claim_of(2)], made)[0] if o.tests), 1).times == float("inf")


@pytest.mark.parametrize(("only_first", "as_claimed"), [(70, True), (95, True), (100, False), (0, False)])
def test_slightly_less_is_as_claimed_up_to_the_margin(only_first: int, as_claimed: bool) -> None:
    """The margin is 2.1 % of 30 %: 0.63 points, 63 of 10,000 images."""
    (test,) = judged(8, counts(only_first, 100, 10_000))[0].tests
    assert test.as_claimed == as_claimed


def test_as_many_images_as_needed_show_that_nets_err_alike_with_a_chance_of_80_percent() -> None:
    alike = next(pair for pair in claim_of(2).pairs if pair.kind is Relation.ALIKE)
    outcome = next(o for o in judge([claim_of(2)], {alike: {"top-1": counts(50, 50, 1000)}})[0] if o.tests)
    images = power.needed(outcome, 1).images
    assert images is not None
    rng = np.random.default_rng(4)
    drawn = rng.multinomial(images, [0.05, 0.05, 0.9], size=500)
    held = [p_values(Relation.ALIKE, counts(a, b, images), 0.63)[0] < 0.05 for a, b, _ in drawn.tolist()]
    assert np.mean(held) == pytest.approx(0.8, abs=0.05)
