"""The chance that a claim is shown if the true differences are the paper's (`table`, which needs no run), and how many
images and seeds show it if they are those found (`needed`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd
import scipy

from vggrepro.results.intervals import ALPHA, Comparison, Seeds
from vggrepro.results.paper_claims import Claim, Pair, Relation, Side, claims
from vggrepro.results.verdicts import (
    BETTER,
    HOLDS,
    MEASURES,
    Comparisons,
    Outcome,
    Tested,
    decide_claim,
    judge,
    kind_of,
    pooled,
)

PAGES = 200  # simulated
WANTED = 0.8  # the chance with which a comparison is to be shown
# Images that one side alone gets wrong, in % of all, by the nets of the two sides; and the standard deviation of a
# difference between seeds, in points, beyond that of each seed's images. Over the claims' comparisons of three seeds on
# imagenet-20 (docs/imagenet-20.md); by top-1 the seeds vary no more than their images do.
SHARES = {"other nets": {"top-1": 9.8, "top-5": 3.3}, "shared nets": {"top-1": 5.3, "top-5": 1.8}}
SPREADS = {"other nets": {"top-1": 0.0, "top-5": 0.12}, "shared nets": {"top-1": 0.0, "top-5": 0.0}}


def table(samples: Sequence[tuple[int, int]], own: Comparisons) -> pd.DataFrame:
    """The chance in % that each tested claim holds with so many images and seeds, and where the shares come from.

    Differences and errors are the paper's. With one seed they are those of the trained nets. With several they are the
    means over all seeds, and each seed's nets differ by `SPREADS`. `own`: comparisons of runs that are there; their
    shares of images that one side alone gets wrong are used in place of `SHARES`. Top-1 and top-5, seeds, and all
    comparisons are drawn independently.

    Columns: `claim`, `sentence`, `comparisons`, `shares` ("table", "runs" or "table and runs"), `column(n, seeds)` for
    each of `samples`.
    """
    tested = [claim for claim in claims() if claim.pairs]
    frame = pd.DataFrame(
        {
            "claim": [claim.number for claim in tested],
            "sentence": [claim.sentence for claim in tested],
            "comparisons": [len(claim.pairs) for claim in tested],
            "shares": [_source(claim, own) for claim in tested],
        }
    )
    rng = np.random.default_rng(0)
    for size, seeds in samples:
        drawn = _drawn(tested, size, seeds, own, rng)
        held = np.zeros(len(tested))
        for page in range(PAGES):
            outcomes = judge(tested, _page(drawn, page))
            held += [decide_claim([outcome.verdict for outcome in each]) == HOLDS for each in outcomes]
        frame[column(size, seeds)] = 100 * held / PAGES
    return frame


@dataclass(frozen=True, slots=True)
class Needed:
    """What would show a comparison by one measure with a chance of 80 %, if its true difference is the one found.

    `images`: with as many seeds as now; `seeds`: with as many images as now; None if no number of it alone is enough.
    `times`: so many times the present images and seeds, both; infinite if the difference is not as claimed.
    """

    test: Tested
    times: float
    images: int | None = None
    seeds: int | None = None


def needed(outcome: Outcome, tested: int) -> Needed:
    """What would show a comparison at the strictest step of the correction over so many `tested` claims.

    Where one measure is enough, the better one counts, else the worse one. By the normal distribution. With one seed,
    how much seeds differ is not known: then the images alone are counted.
    """
    better = outcome.pair.kind in BETTER
    level = ALPHA / (2 * tested * (len(outcome.tests) if better else 1))
    choose = min if better else max
    return choose((_needed(test, level) for test in outcome.tests), key=lambda made: made.times)


def _needed(test: Tested, level: float) -> Needed:
    """As `needed`, at a one-sided level.

    The square of the standard error is a part of the seeds alone, which falls with their number, one of the images
    alone, and one of both, which falls with either.
    """
    if not test.as_claimed:
        return Needed(test, math.inf)
    made, wanted = test.comparison, _error_wanted(test, level) ** 2
    variance = made.error**2 if made.seeds > 1 else (100 * made.discordant - made.difference**2) / made.images
    variance = max(variance, 1e4 / (made.images**2 * made.seeds))  # as if one image at least were discordant
    of_seeds, of_images = (made.seeds_alone, made.images_alone) if made.seeds > 1 else (0.0, variance)
    images = seeds = None
    if wanted > of_seeds:
        images = math.ceil(made.images * (variance - of_seeds) / (wanted - of_seeds))
    if made.seeds > 1 and wanted > of_images:
        seeds = math.ceil(made.seeds * (variance - of_images) / (wanted - of_images))
    alone = of_seeds + of_images
    both = max(0.0, variance - alone)
    times = (alone + math.sqrt(alone**2 + 4 * both * wanted)) / (2 * wanted)  # alone / times + both / times² = wanted
    return Needed(test, times, images, seeds)


def _error_wanted(test: Tested, level: float) -> float:
    """The standard error (points) with which the test shows the difference found with a chance of 80 %."""
    least = -float(scipy.special.ndtri(level))
    if test.kind is not Relation.ALIKE:
        return test.room / (least + float(scipy.special.ndtri(WANTED)))
    margin, difference = test.margin or 0.0, test.comparison.difference  # both sides must be shown

    def missing(error: float) -> float:
        sides = [(margin - sign * difference) / error - least for sign in (1, -1)]
        return float(scipy.special.ndtr(sides).sum()) - 1 - WANTED

    return float(scipy.optimize.brentq(missing, test.room / (least + 10), test.room / least))


def column(size: int, seeds: int) -> str:
    """The name of the column for a number of images and seeds."""
    return f"{size}" if seeds == 1 else f"{size} of {seeds} seeds"


def _source(claim: Claim, own: Comparisons) -> str:
    there = {pair in own for pair in claim.pairs}
    return " and ".join(word for word, known in (("table", False), ("runs", True)) if known in there)


# Comparisons of one kind by one measure: for each pair and page, that of each seed.
Drawn = dict[tuple[str, str], dict[Pair, list[tuple[Comparison, ...]]]]


def _drawn(tested: Sequence[Claim], images: int, seeds: int, own: Comparisons, rng: np.random.Generator) -> Drawn:
    """`PAGES` samples of each comparison by each measure that the paper prints."""
    result: Drawn = {}
    for claim in tested:
        for pair, measure in product(claim.pairs, MEASURES):
            if (difference := _difference(claim, pair, measure)) is None:
                continue
            shared = {view.run for view in pair.first.views} & {view.run for view in pair.second.views}
            nets = "shared nets" if shared else "other nets"
            share = own[pair][measure].discordant if measure in own.get(pair, {}) else SHARES[nets][measure]
            spread = SPREADS[nets][measure] if seeds > 1 else 0.0
            true = difference + spread * rng.standard_normal((PAGES, seeds))
            pages = _samples(images, true, share, _error(pair.second, measure) or 30.0, rng)
            result.setdefault((kind_of(pair), measure), {})[pair] = pages
    return result


def _samples(
    images: int, true: np.ndarray, share: float, b: float, rng: np.random.Generator
) -> list[tuple[Comparison, ...]]:
    """Comparisons drawn for the `true` differences, (pages, seeds) in points; `b` is the second side's error."""
    shares = np.maximum(share, np.abs(true))
    parts = np.stack([(shares + true) / 200, (shares - true) / 200, 1 - shares / 100], axis=-1)
    return [
        tuple(_counted(images, b, int(first), int(second)) for first, second, _ in page)
        for page in rng.multinomial(images, parts)
    ]


def _counted(images: int, b: float, first: int, second: int) -> Comparison:
    """A comparison: `first` and `second` images are wrong on that side alone; the second side's error is `b`."""
    difference = 100 * (first - second) / images
    return Comparison(images, b + difference, b, difference, 0, 0, first, second, 1)


def _page(drawn: Drawn, page: int) -> dict[Pair, dict[str, Comparison]]:
    """The comparisons of one page, by measure; several seeds are pooled as `verdicts.compared` does it."""
    made: dict[Pair, dict[str, Comparison]] = {}
    for (_, measure), of in drawn.items():
        singles = {pair: pages[page] for pair, pages in of.items()}
        several = any(len(each) > 1 for each in singles.values())
        over = pooled({pair: _seeds(each) for pair, each in singles.items()}) if several else None
        for pair, each in singles.items():
            made.setdefault(pair, {})[measure] = over[pair] if over else each[0]
    return made


def _seeds(singles: tuple[Comparison, ...]) -> Seeds:
    """Each seed's nets get images wrong of their own, so a mean over seeds varies as one seed over their number."""
    share = float(np.mean([single.discordant for single in singles]))  # %
    return Seeds(singles, 100 * share / len(singles), 100 * share)  # squared points


def _difference(claim: Claim, pair: Pair, measure: str) -> float | None:
    """The paper's difference in points; where a member's errors are not printed, the smallest of the claim's others."""
    if pair.gap is not None:
        return pair.gap if measure == "top-1" else None
    if (own := _printed(pair, measure)) is not None:
        return own
    others = [gap for other in claim.pairs if (gap := _printed(other, measure)) is not None]
    return min(others, key=abs, default=None)


def _printed(pair: Pair, measure: str) -> float | None:
    first, second = _error(pair.first, measure), _error(pair.second, measure)
    return None if first is None or second is None else round(first - second, 1)


def _error(side: Side, measure: str) -> float | None:
    return side.top1 if measure == "top-1" else side.top5
