"""The tested claims in words: a Markdown document, and the sentences that the HTML page shares with it."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from vggrepro.posteriors.protocol import SPLIT
from vggrepro.report import markdown
from vggrepro.report.header import header_of
from vggrepro.results import power
from vggrepro.results.claims import SO_FAR, Finding, comparisons, growth, printed
from vggrepro.results.columns import DASH, number, p_text, span
from vggrepro.results.intervals import ALPHA, Comparison, detectable, detectable_over_seeds
from vggrepro.results.paper_claims import MARGINS, Relation
from vggrepro.results.scores import Scores
from vggrepro.results.tables import table2
from vggrepro.results.verdicts import CONTRADICTED, HOLDS, LARGER, NOT_RUN, UNDECIDED, Outcome, Tested


def document(findings: Sequence[Finding], scores: Scores) -> str:
    """The findings as a Markdown document of its own, with the data that they were measured on."""
    parts = [f"# The paper's claims on {scores.dataset.name}", _setting(scores)]
    # Table 2 needs no posteriors, but knows the crop and the width of the runs.
    header = header_of([table2(scores)], scores.dataset)
    if header.lead:
        parts += [header.lead, *markdown.bullets(header.differences), "A verdict says what holds here."]
    return "\n\n".join([*parts, claims_markdown(findings)])


def _setting(scores: Scores) -> str:
    data = scores.dataset
    return (
        f"Data: {data.name}, {data.counts[SPLIT]:,} validation images of {len(data.classes):,} classes (fingerprint "
        f"{data.fingerprint[:12]}); preset {data.preset}. The paper: arXiv 1409.1556v6."
    )


def claims_markdown(findings: Sequence[Finding]) -> str:
    """A table of the claims, how to read it and how much the images can show, then the comparisons of each claim."""
    summary = markdown.pipes(pd.DataFrame([_summary(finding) for finding in findings]), left=("claim", "by", "verdict"))
    parts = [counts(findings), summary, preface(findings)]
    parts += [_details(finding, tested(findings)) for finding in findings]
    told: dict[str, list[int]] = {}
    for finding in findings:
        for text in finding.conditions:
            told.setdefault(text, []).append(finding.claim.number)
    if told:
        lines = [
            f"- {text} (Claim{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers))}.)"
            for text, numbers in told.items()
        ]
        parts += ["## What else differs from the paper, by claim", "\n".join(lines)]
    return "\n\n".join(parts) + "\n"


POWER = (
    "How likely each claim is shown",
    "The chance, in %, that a claim is found to hold (docs/claims.md) if all are tested and the true differences "
    "are the paper's. It also depends on how many images only one of the two sides gets wrong. Where the runs are "
    'here, that share is theirs ("runs"); otherwise it was measured on imagenet-20 ("table"). With one seed, the '
    "trained nets have the paper's differences. With several, the means over all seeds have them, each seed's nets get "
    "images wrong of their own, and a difference between nets by top-5 varies a little more, by a standard deviation "
    f"of {power.SPREADS['other nets']['top-5']} points. From simulated pages; uncertain by up to 7 points.",
)  # the title, and what the numbers mean


def power_document(scores: Scores) -> str:
    """`power_frame` as Markdown."""
    title, text = POWER
    grid = markdown.pipes(power_cells(power_frame(scores)), left=("sentence", "shares"))
    return "\n\n".join([f"# {title}", text, grid]) + "\n"


def power_cells(frame: pd.DataFrame) -> pd.DataFrame:
    """`power_frame` as texts under the headings of a page."""
    chances = frame.iloc[:, 4:].map("{:.0f}".format).rename(columns=_power_heading)
    return pd.concat([frame.iloc[:, :4].astype(str), chances], axis=1)


def _power_heading(name: str) -> str:
    """`6,491 images, 3 seeds`, of a column of `power.table`."""
    size, _, seeds = name.partition(" of ")
    return f"{int(size):,} images, {seeds or '1 seed'}"


def power_csv(scores: Scores) -> str:
    """`power_frame` as CSV."""
    return str(power_frame(scores).to_csv(index=False, lineterminator="\n"))


def power_frame(scores: Scores) -> pd.DataFrame:
    """`power.table` for this data set's number of validation images, 10,000 and the paper's 50,000."""
    own = scores.dataset.counts[SPLIT]
    samples = sorted({(own, 1), (own, 3), (10_000, 1), (50_000, 1), (50_000, 3)})  # images, seeds
    return power.table(samples, comparisons(scores))


def counts(findings: Sequence[Finding]) -> str:
    """`Of 11 claims tested on images: 2 hold, 1 contradicted, 8 not decided; 1 holds by arithmetic.`"""
    on_images = [finding for finding in findings if finding.claim.pairs]
    words = [finding.word for finding in on_images]
    seeds = {finding.seeds for finding in on_images if finding.seeds}
    trained = f" with {_seeds(seeds)}" if seeds else ""
    order = (HOLDS, SO_FAR, CONTRADICTED, LARGER, UNDECIDED, NOT_RUN)
    told = [counted(words.count(word), word) for word in order if word in words]
    run = len(words) - words.count(NOT_RUN)
    by_arithmetic = [finding.standing for finding in findings if not finding.claim.pairs]
    rest = [f"{counted(by_arithmetic.count(word), word)} by arithmetic" for word in dict.fromkeys(by_arithmetic)]
    plural = "" if run == 1 else "s"
    return f"Of {run} claim{plural} tested on images{trained}: {', '.join(told)}; {', '.join(rest)}."


def _seeds(numbers: set[int]) -> str:
    if numbers == {1}:
        return "one seed"
    return f"{min(numbers)}{f' to {max(numbers)}' * (len(numbers) > 1)} seeds"


def preface(findings: Sequence[Finding]) -> str:
    """What the columns mean, and the smallest difference that this number of images can show with 80 % power."""
    made = [test for f in findings for o in f.outcomes for test in o.tests]
    lines = [
        "A claim holds if all its comparisons hold. It is contradicted if one of them is significantly the other way. "
        "The comparison that decides is shown first. Differences are first − second in points, with 95 % intervals "
        "(Tango): below zero the first errs less. All tests compare the same images. They are McNemar's exact test or, "
        "where the claim is that nets err alike or slightly less, Tango's test with a margin of "
        f"{100 * MARGINS['top-1']:.1f} % of the top-1 error and {100 * MARGINS['top-5']:.0f} % of the top-5 error. "
        "p (Holm) belongs to a comparison by both measures. It is corrected within the claim and over the claims "
        f"tested, {tested(findings)} here: at most one page in twenty has a false verdict. With one seed each net was "
        "trained once, and the tests take it as it is: trained again with another seed, it may differ by more. With "
        "several seeds, p and intervals are Student's t over seeds and images."
    ]
    if made:
        lines.append(_sensitivity(made, tested(findings)))
    return "\n\n".join(lines)


def _sensitivity(tests: Sequence[Tested], claims: int) -> str:
    """How much the images show: the smallest difference that the median comparison by top-1 errors would find."""
    made = [test.comparison for test in tests if test.measure == "top-1"]
    several = [comparison for comparison in made if comparison.seeds > 1]
    strict = ALPHA / (2 * claims)
    if several:
        middle = sorted(several, key=lambda comparison: comparison.error)[len(several) // 2]
        extent = f"the difference has a standard error of {middle.error:.2f} points over seeds and images"
        alone, strictest = (detectable_over_seeds(middle.error, middle.freedom, alpha) for alpha in (ALPHA, strict))
    else:
        middle = sorted(made, key=lambda comparison: comparison.discordant)[len(made) // 2]
        extent = f"one of the two sides alone is wrong (top-1) on {middle.discordant:.1f} % of them"
        alone, strictest = (detectable(middle.images, middle.discordant, alpha) for alpha in (ALPHA, strict))

    return f"There are {middle.images:,} images. In the median comparison, {extent}. {_found(alone, strictest)}"


def _found(alone: float, strictest: float) -> str:
    """The smallest differences in points, NaN for none, that a test alone and the strictest step would find."""
    if math.isnan(alone):
        return "No difference is then found with a chance of 80 %, however large it is."

    def words(points: float) -> str:
        return f"{points:.{1 if points >= 1 else 2}f} points"

    step = "at the strictest step of the correction, for a claim of one comparison"
    first = f"The smallest difference that is then found with a chance of 80 % is {words(alone)} by a test alone"
    if math.isnan(strictest):
        return f"{first}; {step}, none is found, however large it is."
    return f"{first}, and {words(strictest)} {step}."


def tally(finding: Finding) -> str:
    """The verdict in words. If the comparisons differ, also how many of them have which verdict."""
    counts = tally_counts(finding)
    return finding.standing + (f" (of {len(finding.outcomes)} comparisons: {counts})" if counts else "")


def tally_counts(finding: Finding) -> str:
    """How many of a claim's comparisons have which verdict, `2 contradicted, 1 holds`; empty if all have the same."""
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
        gap = number(printed(outcome.pair, test.measure)["difference_paper"], "+")
        result |= {"by": f"{outcome.pair.label}, {test.measure}", "paper": gap, "ours": _difference(test.comparison)}
        result |= {"p (Holm)": p_text(outcome.p)}
    elif finding.parameters:
        ours, theirs = growth(finding)
        result |= {"by": "E against A, million parameters", "paper": f"{theirs:+.0f}", "ours": f"{ours:+.1f}"}
        result |= {"p (Holm)": DASH}
    else:
        result |= dict.fromkeys(("by", "paper", "ours", "p (Holm)"), DASH)
    return result | {"verdict": tally(finding)}


def tested(findings: Sequence[Finding]) -> int:
    """How many claims were tested, for which p-values are corrected."""
    return sum(finding.deciding is not None for finding in findings)


def remarks(finding: Finding, claims: int) -> list[str]:
    """The lines below a claim's comparisons: which way they lie, what would decide it, and its notes.

    `claims`: how many were `tested`.
    """
    return [text for text in (_directions(finding), _needed(finding, claims)) if text] + list(finding.notes)


def _directions(finding: Finding) -> str:
    """How many of a claim's comparisons lie the paper's way, whatever the tests say; empty if none was run."""
    run = [outcome.tests for outcome in finding.outcomes if outcome.tests]
    counts = [
        f"{sum(test.as_claimed for tests in run for test in tests if test.measure == measure)} by {measure}"
        for measure in dict.fromkeys(test.measure for tests in run for test in tests)
    ]
    return f"Comparisons that lie the paper's way, of {len(run)}: {', '.join(counts)}." if run else ""


def _needed(finding: Finding, claims: int) -> str:
    """How many images and seeds would show the comparison that is furthest from it; empty if the claim is decided."""
    left = [outcome for outcome in finding.outcomes if outcome.verdict == UNDECIDED]
    if finding.verdict != UNDECIDED or not left:
        return ""
    outcome, found = max(((one, power.needed(one, claims)) for one in left), key=lambda made: made[1].times)
    name = f"{outcome.pair.label}, {found.test.measure}"
    if math.isinf(found.times):
        return f"{name}: the difference found is not as claimed. If it is true, no number of images shows the claim."
    ways = []
    if found.images is not None:
        ways.append(f"{_about(found.images)} images of {_seeds({outcome.seeds})}")
    if found.seeds is not None:
        ways.append(f"{_about(found.seeds)} seeds of these images")
    ways = ways or [f"{_about(math.ceil(found.times))} times as many images and seeds"]
    return f"{name}: if the difference found is the true one, about {' or '.join(ways)} show it with a chance of 80 %."


def _about(count: int) -> str:
    """Rounded up to two digits: `9`, `5,300`."""
    step = 10 ** max(0, len(str(count)) - 2)
    return f"{-(-count // step) * step:,}"


def _details(finding: Finding, claims: int) -> str:
    """A claim's comparisons with a line for each measure, and its notes; `claims`: how many were tested."""
    claim = finding.claim
    left: tuple[str, ...] = ("comparison", "measure", "verdict")
    if finding.parameters:
        lines, left = _parameter_lines(finding), ("net",)
    else:
        any_ran = any(outcome.tests for outcome in finding.outcomes)
        lines = [line for outcome in finding.outcomes for line in _detail_lines(outcome, any_ran)]
    heading = f"## {claim.number}. {claim.sentence}: {finding.standing}"
    grid = markdown.pipes(pd.DataFrame(lines), left)
    return "\n\n".join([heading, f"Sect. {claim.section}.", grid, *markdown.bullets(remarks(finding, claims))])


def _detail_lines(outcome: Outcome, any_ran: bool) -> list[dict[str, str]]:
    """The lines of one comparison; with columns for the tests if any comparison of the claim was tested."""
    label = outcome.pair.label + ("" if outcome.pair.kind is Relation.LOWER else f" ({outcome.pair.kind})")
    lines = []
    tests = {test.measure: test for test in outcome.tests}
    for measure in tests or ["top-1"]:
        theirs = printed(outcome.pair, measure)
        errors = " / ".join(number(theirs[name]) for name in ("first_paper", "second_paper"))
        line = {"comparison": label, "measure": measure, "paper": errors}
        line |= {"Δ paper": number(theirs["difference_paper"], "+")}
        test = tests.get(measure)
        if test:
            made = test.comparison
            line |= {"ours": f"{number(made.a)} / {number(made.b)}", "Δ ours": _difference(made)}
            line |= {"alone wrong": f"{made.only_a:,} / {made.only_b:,}", "p": p_text(test.p)}
            line |= {"p (Holm)": p_text(outcome.p)}
        elif any_ran:
            line |= dict.fromkeys(("ours", "Δ ours", "alone wrong", "p", "p (Holm)"), DASH)
        lines.append({**line, "verdict": outcome.standing})
    return lines


def _parameter_lines(finding: Finding) -> list[dict[str, str]]:
    return [
        {"net": net, "paper (M)": f"{published:.0f}", "ours at full size (M)": f"{full:.2f}", "here (M)": f"{here:.2f}"}
        for net, (full, published, here) in finding.parameters.items()
    ]


def _difference(made: Comparison) -> str:
    return f"{number(made.difference, '+')} {span(made.low, made.high)}"
