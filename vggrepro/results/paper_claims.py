"""What the paper claims, as data: twelve sentences, and for each the table rows that are compared (Sect. 2.2, 4).

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

DEPTH = ("A", "B", "D")  # nets of 3×3 layers by which the error falls; C, as deep as D, has 1×1 layers
SCALES = (S256, S384, JITTER)
# Smaller differences count as none. Shares of the second side's error: the step from B to C, the smallest of top-1
# errors that the paper calls a gain, is 0.6 of 28.7 and 0.5 of 9.9 (Table 3). Its own |E - D| is at most 0.3 and 0.2.
MARGINS = {"top-1": 0.021, "top-5": 0.05}
DEEP_NETS = ("C", "D", "E")  # trained at every S
BOTH = "multi-crop & dense"


class Relation(StrEnum):
    """What a claim says of a comparison's first side."""

    LOWER = "errs less"
    NOT_LOWER = "errs no less"  # not by the margin or more
    ALIKE = "errs alike"  # within the margin, either way
    SLIGHTLY_LOWER = "errs slightly less"  # less, but not by more than the margin


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
    kind: Relation = Relation.LOWER
    gap: float | None = None

    @property
    def label(self) -> str:
        return f"{self.first.label} against {self.second.label}"


@dataclass(frozen=True, slots=True)
class Claim:
    """One claim in our words, where the paper makes it, and the comparisons that must all support it."""

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
    falls = [Pair(_single(deeper), _single(net)) for net, deeper in [*pairwise(DEPTH), ("A", "E")]]
    falls.append(Pair(_several("D", S256), _several("B", S256)))
    rows = (_single, _several)  # Sect. 4.2 repeats for several Q what Sect. 4.1 says of depth and jitter
    saturates = [Pair(row("E", scale), row("D", scale), Relation.ALIKE) for row in rows for scale in SCALES]
    context = [Pair(_single("D", scale), _single("C", scale)) for scale in SCALES]
    jitter = [Pair(row(net, JITTER), row(net, fixed)) for row in rows for net in DEEP_NETS for fixed in (S256, S384)]
    scales = [
        Pair(_several(row.labels["net"], row.views[0].run.scale), _single(row.labels["net"], row.views[0].run.scale))
        for row in paper.rows(4)
    ]
    crops = [Pair(_method(net, "multi-crop"), _method(net, "dense"), Relation.SLIGHTLY_LOWER) for net in ("D", "E")]
    both = [Pair(_method(net, BOTH), _method(net, alone)) for net in ("D", "E") for alone in ("dense", "multi-crop")]
    two = [Pair(_two_nets(method), _submission()) for method in ("dense", "multi-crop", BOTH)]
    return (
        _claim(
            1,
            "Local response normalisation does not help",
            "4.1",
            [Pair(_single("A-LRN"), _single("A"), Relation.NOT_LOWER)],
            "The paper adds that it costs memory and time: `vggrepro nets --measure` measures both.",
        ),
        _claim(
            2,
            "The error falls with depth, from 11 layers (A) to 19 (E), and saturates there (D, E)",
            "4.1, 4.2",
            falls + saturates,
        ),
        _claim(3, "Extra non-linearity helps: C is better than B", "4.1", [Pair(_single("C"), _single("B"))]),
        _claim(4, "Spatial context matters: D is better than C", "4.1", context),
        _claim(
            5,
            "A deep net of small filters beats a shallow one of large filters",
            "4.1",
            [Pair(_centre("B"), _centre("B-5x5"), gap=-7.0)],
            "The paper prints no errors here, only that the shallow net's top-1 error was 7 points higher.",
        ),
        _claim(6, "Scale jitter in training beats a fixed S", "4.1, 4.2", jitter),
        _claim(7, "Several test scales beat one", "4.2", scales),
        _claim(
            8,
            "Multi-crop is slightly better than dense",
            "4.3",
            crops,
            "A difference above the margin is another effect than the paper's, which is 0.2 points (top-1).",
        ),
        _claim(9, "Multi-crop and dense together beat each", "4.3", both),
        _claim(
            10,
            "An ensemble errs less than each of its nets by the same method",
            "4.4",
            _fusions(),
            "By another method a single net may err less: the paper's seven nets (24.7 / 7.5) do not reach E alone "
            "with dense and multi-crop evaluation (24.4 / 7.1).",
        ),
        _claim(11, "Two multi-scale nets beat the seven-net submission", "4.4", two),
        _claim(12, "Depth is cheap in parameters", "2.2", [], "Counted, not tested."),
    )


def _claim(number: int, sentence: str, section: str, pairs: Sequence[Pair], remark: str = "") -> Claim:
    return Claim(number, sentence, section, tuple(pairs), remark)
