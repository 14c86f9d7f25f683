"""Intervals and tests against published examples, independent computations and brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import optimize, stats

from vggrepro.results import intervals
from vggrepro.results.intervals import compare, detectable, holm, mcnemar, power, score, tango, wilson

# images wrong in the first alone, in the second alone, all images
TABLES = [(7, 1, 21), (16, 8, 86), (0, 1, 44), (0, 0, 30), (5, 0, 12), (12, 2, 50), (40, 20, 160), (3, 3, 9)]


def score_test(only_a: int, only_b: int, images: int, difference: float) -> float:
    """Two-sided p that the true difference is `difference` points."""
    return float(2 * stats.norm.sf(abs(score(only_a, only_b, images, difference / 100))))


def test_wilson_by_published_numbers() -> None:
    # Newcombe 1998 (Statistics in Medicine 17:857), Table I, method 3: 81/263, 15/148, 0/20, 1/29
    for wrong, images, low, high in [
        (81, 263, 25.53, 36.62),
        (15, 148, 6.24, 16.05),
        (0, 20, 0, 16.11),
        (1, 29, 0.61, 17.18),
    ]:
        interval = wilson(wrong, images)
        assert (interval.low, interval.high) == (pytest.approx(low, abs=0.006), pytest.approx(high, abs=0.006))


def test_wilson_ends_are_exact_and_levels_nest() -> None:
    assert wilson(0, 10).low == 0
    assert wilson(10, 10).high == 100
    narrow, wide = wilson(30, 100, 0.8), wilson(30, 100, 0.99)
    assert wide.low < narrow.low < 30 < narrow.high < wide.high


@pytest.mark.parametrize("counts", [(1, 0), (-1, 5), (6, 5)])
def test_impossible_counts_are_refused(counts: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=f"{counts[0]} of {counts[1]} images"):
        wilson(*counts)


def test_tango_by_published_examples() -> None:
    # Fagerland et al. 2014 (Statistics in Medicine 33:2850), airway reactivity: 1, 1, 7, 12
    assert tango(1, 7, 21).low == pytest.approx(-51.7, abs=0.05)
    assert tango(1, 7, 21).high == pytest.approx(-2.6, abs=0.05)
    # Agresti & Min 2005 (Statistics in Medicine 24:729): 53, 16, 8, 9
    assert tango(16, 8, 86).low == pytest.approx(-2.0, abs=0.05)
    assert tango(16, 8, 86).high == pytest.approx(20.7, abs=0.05)


def constrained_score(only_a: int, only_b: int, images: int, difference: float) -> float:
    """Tango's statistic by its definition: the likelihood is maximised numerically under the difference."""

    def minus_likelihood(p_b: float) -> float:
        shares = [p_b + difference, p_b, 1 - 2 * p_b - difference]
        counts = [only_a, only_b, images - only_a - only_b]
        return -sum(count * math.log(max(share, 1e-300)) for count, share in zip(counts, shares, strict=True) if count)

    limits = max(0.0, -difference), (1 - difference) / 2
    p_b = optimize.minimize_scalar(minus_likelihood, bounds=limits, method="bounded", options={"xatol": 1e-13}).x
    variance = (2 * p_b + difference - difference**2) / images
    return ((only_a - only_b) / images - difference) / math.sqrt(variance)


@pytest.mark.parametrize(("only_a", "only_b", "images"), TABLES)
def test_tango_inverts_the_score_test(only_a: int, only_b: int, images: int) -> None:
    interval = tango(only_a, only_b, images)
    for limit, z in ((interval.low, 1.959964), (interval.high, -1.959964)):
        assert constrained_score(only_a, only_b, images, limit / 100) == pytest.approx(z, abs=1e-3)
        assert score_test(only_a, only_b, images, limit) == pytest.approx(0.05, abs=1e-6)
    assert (
        score_test(only_a, only_b, images, interval.low - 0.1)
        < 0.05
        < score_test(only_a, only_b, images, interval.low + 0.1)
    )
    mirrored = tango(only_b, only_a, images)
    assert (mirrored.low, mirrored.high) == pytest.approx((-interval.high, -interval.low))


def test_tango_at_the_ends() -> None:
    assert tango(0, 5, 5).low == -100
    assert tango(5, 0, 5).high == 100
    # without discordant images z^2 / (n + z^2), from the closed form
    assert tango(0, 0, 100).high == pytest.approx(100 * 1.959964**2 / (100 + 1.959964**2), abs=1e-4)
    assert score_test(0, 0, 10, 0) == 1


def test_the_score_test_of_no_difference_is_mcnemars_chi_square() -> None:
    for only_a, only_b, images in ((7, 1, 21), (30, 50, 1000)):
        chi_square = (only_a - only_b) ** 2 / (only_a + only_b)
        assert score_test(only_a, only_b, images, 0) == pytest.approx(stats.chi2.sf(chi_square, 1))


def test_mcnemar_by_hand() -> None:
    assert mcnemar(0, 0) == 1
    assert mcnemar(4, 4) == 1
    assert mcnemar(1, 7) == pytest.approx(2 * (1 + 8) / 2**8)
    assert mcnemar(0, 6) == pytest.approx(2 / 2**6)
    for only_a, only_b in ((3, 9), (0, 1), (130, 101), (8000, 7000), (2551, 2500)):
        assert mcnemar(only_a, only_b) == pytest.approx(stats.binomtest(only_a, only_a + only_b).pvalue, rel=1e-9)


def test_what_mcnemar_finds_the_interval_finds() -> None:
    """Exact p < 0.05 leaves 0 outside of the 95 % interval: the table never contradicts itself."""
    found = 0
    for discordant in (*range(1, 30), 50, 75, 101, 150):
        for only_a in range(discordant + 1):
            if mcnemar(only_a, discordant - only_a) < 0.05:
                found += 1
                assert score_test(only_a, discordant - only_a, 200, 0) < 0.05
    assert found > 300


def test_compare_by_hand() -> None:
    a = np.array([1, 1, 1, 0, 0, 1, 1, 1, 0, 0], dtype=bool)
    b = np.array([1, 0, 0, 0, 0, 0, 0, 0, 1, 0], dtype=bool)
    made = compare(a, b)
    assert (made.images, made.a, made.b, made.difference) == (10, 60.0, 20.0, 40.0)
    assert (made.only_a, made.only_b, made.discordant) == (5, 1, 60.0)
    assert made.p == pytest.approx(2 * (1 + 6) / 2**6)
    assert made.low < 40 < made.high
    assert intervals.Interval(made.low, made.high) == tango(5, 1, 10)


def test_compare_needs_the_same_images() -> None:
    with pytest.raises(ValueError, match=r"\(3,\) and \(4,\) are not the same images"):
        compare(np.zeros(3, bool), np.zeros(4, bool))
    with pytest.raises(ValueError, match="are not the same images"):
        compare(np.zeros(0, bool), np.zeros(0, bool))


def test_holm_by_hand() -> None:
    # sorted 0.005, 0.01, 0.03, 0.04: times 4, 3, 2, 1, never falling
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize(
    ("images", "p_a", "p_b", "least"),
    [
        (50, 0.1, 0.1, 0.93),
        (200, 0.02, 0.005, 0.93),  # 5 discordant images expected
        (100, 0.2, 0.1, 0.945),
        (1000, 0.06, 0.06, 0.945),
        (1000, 0.005, 0.05, 0.945),
    ],
)
def test_coverage_of_the_paired_interval(images: int, p_a: float, p_b: float, least: float) -> None:
    """Exact, over all tables: about 95 %, at the worst 93 % where few discordant images are expected."""
    most = min(images // 2, int(images * max(p_a, p_b) * 3) + 15)
    counts = np.array([(a, b) for a in range(most + 1) for b in range(most + 1)])
    rest = images - counts.sum(axis=1, keepdims=True)
    chance = stats.multinomial.pmf(np.hstack([counts, rest]), images, [p_a, p_b, 1 - p_a - p_b])
    likely = chance > 1e-7
    held = [score_test(int(a), int(b), images, 100 * (p_a - p_b)) >= 0.05 for a, b in counts[likely]]
    assert chance[likely].sum() > 0.9999
    assert least <= float(chance[likely] @ np.array(held)) <= 0.98


def test_power_by_simulation() -> None:
    rng = np.random.default_rng(0)
    for images, discordant, difference, alpha in (
        (300, 20.0, 8.0, 0.05),
        (2000, 10.0, 1.5, 0.05),
        (500, 6.0, 4.0, 0.001),
    ):
        p_a, p_b = (discordant + difference) / 200, (discordant - difference) / 200
        counts = rng.multinomial(images, [p_a, p_b, 1 - p_a - p_b], size=20_000)
        smaller, both = counts[:, :2].min(axis=1), counts[:, :2].sum(axis=1)
        found = (2 * stats.binom.cdf(smaller, both, 0.5) <= alpha) & (counts[:, 0] > counts[:, 1])
        assert power(images, discordant, difference, alpha) == pytest.approx(found.mean(), abs=0.012)


def test_power_of_no_difference_is_at_most_half_alpha() -> None:
    for images in (30, 300, 50_000):
        assert 0 < power(images, 15.0, 0.0) <= 0.025
    assert power(100, 0.0, 0.0) == 0
    with pytest.raises(ValueError, match="a difference of 5 needs 5 % discordant images or more"):
        power(100, 4, 5)


def test_the_smallest_detectable_difference() -> None:
    for images, discordant in ((500, 10.0), (50_000, 12.0)):
        smallest = detectable(images, discordant)
        assert power(images, discordant, smallest) == pytest.approx(0.8, abs=0.01)
        # Miettinen's approximation (Biometrics 1968): (z_a sqrt(psi) + z_b sqrt(psi - d^2))^2 = n d^2
        share, d = discordant / 100, smallest / 100
        needed = (1.959964 * math.sqrt(share) + 0.841621 * math.sqrt(share - d * d)) ** 2 / d**2
        assert needed == pytest.approx(images, rel=0.1)
    assert detectable(500, 10.0, 0.001) > detectable(500, 10.0)
    assert math.isnan(detectable(20, 10.0))
