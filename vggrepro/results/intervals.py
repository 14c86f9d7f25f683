"""Intervals and tests for errors counted on the same images. Pure functions from counts to per cent and p.

Two classifiers seen on the same images differ only where exactly one of them errs (the discordant images).
Counts are images, errors and differences are per cent of all images, p-values are two-sided. With one seed the
tests treat the images as a sample and the nets as fixed (Sect. 4 also reports one net for each row). With several
(`over_seeds`) they treat the seeds as a sample too.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy  # loads its parts on first use: `status` needs none of them

LEVEL, ALPHA = 0.95, 0.05  # of intervals, of tests


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval in per cent (of an error) or points (of a difference)."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two error rates on the same images.

    `a`, `b` are errors in per cent; `difference` = a - b in points, its 95 % interval from `low` to `high`;
    `only_a` images are wrong in a alone, `only_b` in b alone; `p` is McNemar's exact test of no difference.

    With several `seeds` errors are means over them, images are counted once for each, and `error` is the standard error
    of the difference (points) over seeds and images, with `freedom` degrees of freedom (`over_seeds`); `each` has the
    difference of each seed. Of the square of `error`, `seeds_alone` would be left with endless images,
    `images_alone` with endless seeds.
    """

    images: int
    a: float
    b: float
    difference: float
    low: float
    high: float
    only_a: int
    only_b: int
    p: float
    seeds: int = 1
    error: float = 0.0
    freedom: float = math.inf
    each: tuple[float, ...] = ()
    seeds_alone: float = 0.0
    images_alone: float = 0.0

    @property
    def discordant(self) -> float:
        """Images that exactly one of the two gets wrong, in per cent."""
        return 100 * (self.only_a + self.only_b) / (self.images * self.seeds)

    def below(self, difference: float) -> float:
        """One-sided p that the true difference a - b is less than `difference` points: small if it is shown to be.

        At 0 it is the exact binomial test of the discordant images (McNemar's), elsewhere Tango's score test; with
        several seeds Student's t.
        """
        if self.seeds > 1:
            return _student(self.difference - difference, self.error, self.freedom)
        if difference == 0:
            return float(scipy.special.bdtr(self.only_a, self.only_a + self.only_b, 0.5))
        return float(scipy.special.ndtr(score(self.only_a, self.only_b, self.images, difference / 100)))

    def above(self, difference: float) -> float:
        """`below`, that the true difference is more than `difference` points."""
        swapped = dataclasses.replace(self, difference=-self.difference, only_a=self.only_b, only_b=self.only_a)
        return swapped.below(-difference)


def wilson(wrong: int, images: int, level: float = LEVEL) -> Interval:
    """Wilson's score interval of an error in per cent (Wilson 1927); it stays within 0 and 100.

    Raises:
        ValueError: no images, or more wrong than there are.
    """
    _check_count(wrong, images)
    interval = scipy.stats.binomtest(wrong, images).proportion_ci(level, method="wilson")
    # Without errors, or without right answers, an end is exactly 0 or 100; rounding may miss it.
    low = 0.0 if wrong == 0 else 100 * float(interval.low)
    high = 100.0 if wrong == images else 100 * float(interval.high)
    return Interval(low, high)


def compare(wrong_a: np.ndarray, wrong_b: np.ndarray) -> Comparison:
    """Compares two classifiers on the same images: (n,) bool each, true where it errs, in one order.

    Raises:
        ValueError: no images, or different numbers of them.
    """
    if wrong_a.shape != wrong_b.shape or wrong_a.ndim != 1 or not len(wrong_a):
        raise ValueError(f"{wrong_a.shape} and {wrong_b.shape} are not the same images")
    images = len(wrong_a)
    errors_a, errors_b = int(np.count_nonzero(wrong_a)), int(np.count_nonzero(wrong_b))
    both = int(np.count_nonzero(wrong_a & wrong_b))
    only_a, only_b = errors_a - both, errors_b - both
    interval = tango(only_a, only_b, images)
    return Comparison(
        images=images,
        a=100 * errors_a / images,
        b=100 * errors_b / images,
        difference=100 * (only_a - only_b) / images,
        low=interval.low,
        high=interval.high,
        only_a=only_a,
        only_b=only_b,
        p=mcnemar(only_a, only_b),
    )


def _student(difference: float, error: float, freedom: float) -> float:
    if error == 0:
        return 0.5 + 0.5 * float(np.sign(difference))
    return float(scipy.special.stdtr(freedom, difference / error))


@dataclass(frozen=True, slots=True)
class Seeds:
    """Two classifiers on the same images, each trained with several seeds: what `over_seeds` needs of them.

    `singles`: the comparison of each seed; `of_images`: the variance over images of the per-image difference in points,
    averaged over the seeds; `of_both`: the variance between seeds of an image's difference, averaged over the images.
    """

    singles: tuple[Comparison, ...]
    of_images: float
    of_both: float

    @property
    def of_seeds(self) -> float:
        """The variance of the difference between seeds, squared points."""
        return float(np.var([one.difference for one in self.singles], ddof=1))


def seeds_of(wrong_a: Sequence[np.ndarray], wrong_b: Sequence[np.ndarray]) -> Seeds:
    """As `compare`, with a pair of arrays (n,) bool for each seed.

    Raises:
        ValueError: no images, or different numbers of them.
    """
    singles = tuple(compare(a, b) for a, b in zip(wrong_a, wrong_b, strict=True))
    gaps = 100 * np.array([a.astype(float) - b for a, b in zip(wrong_a, wrong_b, strict=True)])
    of_images = float(np.var(gaps.mean(0), ddof=1)) if gaps.shape[1] > 1 else 0.0
    return Seeds(singles, of_images, float(np.var(gaps, axis=0, ddof=1).mean()))


def over_seeds(made: Seeds, spread: float, freedom: float) -> Comparison:
    """The comparison over seeds and images: would other seeds and other images show the same?

    The variance of the mean difference is that of the images plus that of the seeds, both over their numbers; an
    effect of a seed on an image counts in both, so the interval is rather too wide than too narrow. Degrees of freedom:
    Satterthwaite's.

    Args:
        made: two seeds or more.
        spread: the variance of a difference between seeds in squared points, pooled over comparisons of one kind.
        freedom: its degrees of freedom.
    """
    count, images = len(made.singles), made.singles[0].images
    by_seed, by_image = spread / count, made.of_images / images
    error = math.sqrt(by_seed + by_image)
    parts = by_seed**2 / freedom + by_image**2 / max(1, images - 1)
    degrees = (by_seed + by_image) ** 2 / parts if parts else math.inf
    a, b = (float(np.mean([getattr(one, side) for one in made.singles])) for side in "ab")
    half = error * float(scipy.special.stdtrit(degrees, 0.5 + LEVEL / 2))
    only_a, only_b = (sum(getattr(one, side) for one in made.singles) for side in ("only_a", "only_b"))
    difference = 100 * (only_a - only_b) / (images * count)  # not a - b, whose rounding makes a tie a difference
    p = 2 * _student(-abs(difference), error, degrees)
    each = tuple(one.difference for one in made.singles)
    by_both = made.of_both / (images * count)
    return Comparison(
        images,
        a,
        b,
        difference=difference,
        low=difference - half,
        high=difference + half,
        only_a=only_a,
        only_b=only_b,
        p=p,
        seeds=count,
        error=error,
        freedom=degrees,
        each=each,
        seeds_alone=max(0.0, by_seed - by_both),
        images_alone=max(0.0, by_image - by_both),
    )


def mcnemar(only_a: int, only_b: int) -> float:
    """McNemar's exact test, two-sided: under equal errors, a discordant image is wrong in either with chance 1/2."""
    return min(1.0, 2 * float(scipy.stats.binom.cdf(min(only_a, only_b), only_a + only_b, 0.5)))


def tango(only_a: int, only_b: int, images: int, level: float = LEVEL) -> Interval:
    """Tango's score interval of the paired difference, in points (Tango 1998, Statistics in Medicine 17:891).

    All differences whose `score` is no more than 1.96 from 0; at 0 that test is McNemar's without correction. Always
    within -100 and 100, of positive width also without discordant images.

    Raises:
        ValueError: no images, or more discordant ones than there are.
    """
    _check_count(only_a + only_b, images)
    z = float(scipy.stats.norm.ppf(0.5 + level / 2))
    low = _lower_limit(only_a, only_b, images, z)
    high = -_lower_limit(only_b, only_a, images, z)
    return Interval(100 * low, 100 * high)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values in the given order (Holm 1979): the chance of any false positive stays below p."""
    order = sorted(range(len(ps)), key=ps.__getitem__)
    adjusted = [1.0] * len(ps)
    running = 0.0
    for place, index in enumerate(order):
        running = max(running, min(1.0, (len(ps) - place) * ps[index]))
        adjusted[index] = running
    return adjusted


def power(images: int, discordant: float, difference: float, alpha: float = ALPHA) -> float:
    """Chance from 0 to 1 that the exact test finds a true difference at level `alpha`, in the right direction.

    Exact: summed over the number of discordant images. `discordant` and `difference` are per cent of the images.

    Raises:
        ValueError: a difference larger than the share of discordant images.
    """
    if not 0 <= abs(difference) <= discordant <= 100:
        raise ValueError(f"a difference of {difference} needs {abs(difference)} % discordant images or more")
    if discordant == 0:
        return 0.0
    share = discordant / 100
    middle, spread = images * share, math.sqrt(images * share * (1 - share))
    counts = np.arange(max(0, math.floor(middle - 9 * spread - 9)), min(images, math.ceil(middle + 9 * spread + 9)) + 1)
    fewer = scipy.stats.binom.ppf(alpha / 2, counts, 0.5)
    fewer -= (
        scipy.stats.binom.cdf(fewer, counts, 0.5) > alpha / 2
    )  # the largest number on the losing side that still rejects
    losing = (1 - abs(difference) / discordant) / 2
    return float(np.sum(scipy.stats.binom.pmf(counts, images, share) * scipy.stats.binom.cdf(fewer, counts, losing)))


def detectable(images: int, discordant: float, alpha: float = ALPHA, wanted: float = 0.8) -> float:
    """The smallest true difference (points) that the exact test finds with the `wanted` power.

    NaN where the images do not suffice for any: not even if all `discordant` per cent were wrong in the same net.
    """
    if power(images, discordant, discordant, alpha) < wanted:
        return math.nan
    return float(
        scipy.optimize.brentq(lambda d: power(images, discordant, d, alpha) - wanted, 0.0, discordant, xtol=1e-4)
    )


def detectable_over_seeds(error: float, freedom: float, alpha: float = ALPHA, wanted: float = 0.8) -> float:
    """As `detectable`, by Student's t with several seeds; `error`: the standard error of the difference (points)."""
    degrees = min(freedom, 1e6)
    least = float(scipy.stats.t.isf(alpha / 2, degrees))
    power_of = scipy.stats.nct.sf
    return error * float(scipy.optimize.brentq(lambda d: power_of(least, degrees, d) - wanted, 0.0, 2 * least + 10))


def _check_count(part: int, images: int) -> None:
    if not 0 <= part <= images or images < 1:
        raise ValueError(f"{part} of {images} images")


def score(only_a: int, only_b: int, images: int, difference: float) -> float:
    """Tango's statistic: the standardised distance of the observed difference from `difference` (both shares)."""
    # Under p_a - p_b = difference, the likelihood is largest at the larger root p_b of a x^2 + b x + c.
    a = 2 * images
    b = (2 * images - only_a + only_b) * difference - only_a - only_b
    c = -only_b * difference * (1 - difference)
    root = math.sqrt(max(0.0, b * b - 4 * a * c))
    p_b = -2 * c / (b + root) if b > 0 else (root - b) / (2 * a)  # without cancellation
    variance = images * (2 * p_b + difference * (1 - difference))
    distance = only_a - only_b - images * difference
    return distance / math.sqrt(variance) if variance > 0 else math.copysign(math.inf, distance) if distance else 0.0


def _lower_limit(only_a: int, only_b: int, images: int, z: float) -> float:
    """The difference below the observed one at which `score` is z."""
    observed, least = (only_a - only_b) / images, -1 + 1e-12
    if observed <= least or score(only_a, only_b, images, least) <= z:
        return -1.0
    return float(
        scipy.optimize.brentq(lambda d: score(only_a, only_b, images, d) - z, least, observed - 1e-15, xtol=1e-12)
    )
