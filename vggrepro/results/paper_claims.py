"""What the paper claims, as data: twelve sentences, and for each the table rows that are compared (Sect. 2.3, 4).

A comparison names first the side that the claim speaks of. Differences are first - second: negative where the first
errs less. What the kinds of comparison mean, and why, is in docs/claims.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from itertools import pairwise

from vggrepro import paper
from vggrepro.paper import JITTER, S256, S384, Row, Run, Scale, View

DEPTH = ("A", "B", "C", "D")  # Table 3's nets by which the error falls, at S = 256
SCALES = (S256, S384, JITTER)
DEEP_NETS = ("C", "D", "E")  # trained at every S
BOTH = "multi-crop & dense"


class Kind(StrEnum):
    """What a claim says of a comparison's first side."""

    LOWER = "errs less"
    NOT_LOWER = "errs no less"  # not by the margin or more
    ALIKE = "errs alike"  # within the margin, either way


@dataclass(frozen=True, slots=True)
class Side:
    """One side of a comparison: its name, the posteriors it averages, the published errors (%; None: not printed)."""

    label: str
    views: tuple[View, ...]
    top1: float | None = None
    top5: float | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    """Two sides and what the claim says of the first; `gap`: top-1 points, where the paper prints these alone."""

    first: Side
    second: Side
    kind: Kind = Kind.LOWER
    gap: float | None = None

    @property
    def label(self) -> str:
        return f"{self.first.label} against {self.second.label}"


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim in our words, where the paper makes it, and the comparisons that must all bear it out."""

    number: int
    sentence: str
    section: str
    pairs: tuple[Pair, ...]
    remark: str = ""


def _side(table: int, label: str, **wanted: str) -> Side:
    row = _row(table, **wanted)
    return Side(label, row.views, row.top1, row.top5)


def _row(table: int, **wanted: str) -> Row:
    return next(row for row in paper.rows(table) if wanted.items() <= row.labels.items())


def _single(net: str, scale: Scale = S256) -> Side:
    """A row of Table 3."""
    return _side(3, f"{net} {scale.label}", net=net, S=scale.label)


def _several(net: str, scale: Scale) -> Side:
    """A row of Table 4."""
    return _side(4, f"{net} {scale.label} at three Q", net=net, S=scale.label)


def _method(net: str, method: str) -> Side:
    """A row of Table 5."""
    return _side(5, f"{net} {method}", net=net, method=method)


def _two_nets(method: str) -> Side:
    """A post-submission row of Table 6."""
    return _side(6, f"D + E {method}", group="post-submission", method=method)


def _submission() -> Side:
    """Table 6's first row."""
    return _side(6, "7 nets dense", group="ILSVRC submission")


def _centre(net: str) -> Side:
    return Side(f"{net} centre crop", (View(Run(net, S256), S256.middle, "center"),))


def _members(fused: Side) -> list[Side]:
    """The single nets of a dense ensemble, each over its own three Q, with Table 4's numbers where it has them."""
    parts: dict[Run, list[View]] = {}
    for view in fused.views:
        parts.setdefault(view.run, []).append(view)
    printed = {row.views: row for row in paper.rows(4)}
    result = []
    for run, views in parts.items():
        row = printed.get(tuple(views))
        label = f"{run.net} {run.scale.label}" + (" (FC layers alone)" if run.fc_only else "")
        result.append(Side(f"{label} at three Q", tuple(views), row.top1 if row else None, row.top5 if row else None))
    return result


def _fusions() -> list[Pair]:
    """Each ensemble against each of its nets, seen by the same method."""
    pairs = [
        Pair(_two_nets(method), _method(net, method)) for method in ("dense", "multi-crop", BOTH) for net in ("D", "E")
    ]
    return pairs + [Pair(_submission(), member) for member in _members(_submission())]


@cache
def claims() -> tuple[Claim, ...]:
    """The twelve claims in the order of the paper's sections."""
    falls = [Pair(_single(deeper), _single(net)) for net, deeper in pairwise(DEPTH)]
    saturates = [Pair(_single("E", scale), _single("D", scale), Kind.ALIKE) for scale in SCALES]
    context = [Pair(_single("D", scale), _single("C", scale)) for scale in SCALES]
    jitter = [Pair(_single(net, JITTER), _single(net, fixed)) for net in DEEP_NETS for fixed in (S256, S384)]
    scales = [
        Pair(_several(row.labels["net"], row.views[0].run.scale), _single(row.labels["net"], row.views[0].run.scale))
        for row in paper.rows(4)
    ]
    crops = [Pair(_method(net, "multi-crop"), _method(net, "dense")) for net in ("D", "E")]
    both = [Pair(_method(net, BOTH), _method(net, alone)) for net in ("D", "E") for alone in ("dense", "multi-crop")]
    two = [Pair(_two_nets(method), _submission()) for method in ("dense", "multi-crop", BOTH)]
    return (
        _claim(
            1,
            "Local response normalisation does not help",
            "4.1",
            [Pair(_single("A-LRN"), _single("A"), Kind.NOT_LOWER)],
        ),
        _claim(2, "The error falls with depth (A, B, C, D) and saturates at 19 layers (E)", "4.1", falls + saturates),
        _claim(3, "Extra non-linearity helps: C is better than B", "4.1", [Pair(_single("C"), _single("B"))]),
        _claim(4, "Spatial context matters: D is better than C", "4.1", context),
        _claim(
            5,
            "A deep net of small filters beats a shallow one of large filters",
            "4.1",
            [Pair(_centre("B"), _centre("B-5x5"), gap=-7.0)],
            "The paper prints no errors here, only that the shallow net's top-1 error was 7 points higher.",
        ),
        _claim(6, "Scale jitter in training beats a fixed S", "4.1", jitter),
        _claim(7, "Several test scales beat one", "4.2", scales),
        _claim(
            8,
            "Multi-crop is slightly better than dense",
            "4.3",
            crops,
            "Tested is better; whether slightly, the interval shows.",
        ),
        _claim(9, "Multi-crop and dense together beat each", "4.3", both),
        _claim(
            10,
            "Fusing nets beats the best single net",
            "4.4",
            _fusions(),
            "An ensemble that beats each of its nets beats the best one, whichever that is: none was picked on these "
            "images.",
        ),
        _claim(11, "Two multi-scale nets beat the seven-net submission", "4.4", two),
        _claim(12, "Depth is cheap in parameters", "2.3", [], "Counted, not tested."),
    )


def _claim(number: int, sentence: str, section: str, pairs: Sequence[Pair], remark: str = "") -> Claim:
    return Claim(number, sentence, section, tuple(pairs), remark)


@cache
def margins() -> dict[str, float]:
    """Points below which a difference counts as none: the smallest step with depth that the paper calls a gain.

    0.6 (top-1, B to C) and 0.5 (top-5, A to B and B to C); the paper's own |E - D| of up to 0.3 and 0.2 count as none.
    """
    rows = [_row(3, net=net, S=S256.label) for net in DEPTH]
    steps = {
        "top-1": [(a.top1 or 0) - (b.top1 or 0) for a, b in pairwise(rows)],
        "top-5": [(a.top5 or 0) - (b.top5 or 0) for a, b in pairwise(rows)],
    }
    return {measure: round(min(values), 1) for measure, values in steps.items()}
