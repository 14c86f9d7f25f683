"""How likely each claim is shown with so many images, if the true differences are the paper's: known before a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from vggrepro.results.intervals import Comparison
from vggrepro.results.paper_claims import Claim, Pair, Side, claims
from vggrepro.results.verdicts import HOLDS, MEASURES, Comparisons, decide_claim, judge

PAGES = 200  # simulated
# Images that one side alone gets wrong, in % of all, by the nets of the two sides. On Tiny ImageNet (top-1 error 65 %)
# two nets had 11 to 13 %; two ways to test one net, or an ensemble and its member, had 5 to 9 %.
SHARES = {"other nets": {"top-1": 12.0, "top-5": 6.0}, "shared nets": {"top-1": 7.0, "top-5": 3.5}}


def table(sizes: Sequence[int], own: Comparisons) -> pd.DataFrame:
    """The chance in % that each tested claim holds, by the number of images, and where the shares come from.

    Differences and errors are the paper's. `own`: comparisons of runs that are there; their shares of images that one
    side alone gets wrong are used in place of `SHARES`. Top-1 and top-5, and all comparisons, are drawn independently.

    Columns: `claim`, `sentence`, `comparisons`, `shares` ("table", "runs" or "table and runs"), `n` for each size.
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
    for size in sizes:
        drawn = {pair: _drawn(claim, pair, size, own.get(pair, {}), rng) for claim in tested for pair in claim.pairs}
        held = np.zeros(len(tested))
        for page in range(PAGES):
            made = {pair: {measure: each[page] for measure, each in of.items()} for pair, of in drawn.items()}
            verdicts = [decide_claim([outcome.verdict for outcome in each]) for each in judge(tested, made)]
            held += [verdict == HOLDS for verdict in verdicts]
        frame[f"{size}"] = 100 * held / PAGES
    return frame


def _source(claim: Claim, own: Comparisons) -> str:
    there = {pair in own for pair in claim.pairs}
    return " and ".join(word for word, known in (("table", False), ("runs", True)) if known in there)


def _drawn(
    claim: Claim, pair: Pair, images: int, own: Mapping[str, Comparison], rng: np.random.Generator
) -> dict[str, list[Comparison]]:
    """`PAGES` samples of a comparison by each measure that the paper prints."""
    shared = {view.run for view in pair.first.views} & {view.run for view in pair.second.views}
    shares = SHARES["shared nets" if shared else "other nets"]
    result = {}
    for measure in MEASURES:
        if (difference := _difference(claim, pair, measure)) is None:
            continue
        share = max(own[measure].discordant if measure in own else shares[measure], abs(difference))
        parts = [(share + difference) / 200, (share - difference) / 200, 1 - share / 100]
        b = _error(pair.second, measure) or 30.0
        result[measure] = [
            Comparison(
                images, b + difference, b, 100 * float(first - second) / images, 0, 0, int(first), int(second), 1
            )
            for first, second, _ in rng.multinomial(images, parts, size=PAGES)
        ]
    return result


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
