"""Which nets to fuse (Sect. 4.4): every pair, and the best subset, chosen on one half of the images.

If the same images chose the best of thousands of subsets and scored it, its error would come out too low. So a hash of
their keys splits the images in halves: one half chooses, the other scores.

Fusing is a mean of posteriors. A class can have a larger mean than the true class only if it has a larger posterior
in at least one of the nets. In trained nets few classes do, so that all subsets of a dozen nets can be counted exactly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vggrepro import paper
from vggrepro.errors import InputError
from vggrepro.paper import TOP_K, Run, View
from vggrepro.posteriors import means, protocol
from vggrepro.posteriors.files import Images
from vggrepro.posteriors.protocol import SPLIT
from vggrepro.results import intervals
from vggrepro.results.beyond import BeyondTable, available
from vggrepro.results.columns import (
    ERRORS,
    MEASURES,
    NAN,
    TOP1,
    Kind,
    column_of,
    labels_of,
    measures_of,
    number,
    numbers,
)
from vggrepro.results.gaps import not_used
from vggrepro.results.scores import File, Scores, split_images
from vggrepro.results.tables import setting
from vggrepro.system import advice
from vggrepro.system.progress import say

NAMES = FUSION, PAIRS = "fusion", "pairs"
EXHAUSTIVE = 14  # nets, one more than Tables 3-6 have; with more nets the subsets are found greedily
CELLS = 1 << 21  # sums held at a time: subsets times classes that may come before the true one

Subset = tuple[int, ...]  # places in the list of nets, ascending


@dataclass(slots=True)
class ErrorCounter:
    """Counts the images that fused subsets of nets get wrong, in each half.

    `files` are the posterior files of each net; every file has the same weight. `split` has their images and labels;
    the default is those of the first file. `wrong` has a (2, 2) array for each subset counted: rows top-1 and top-5,
    columns the choosing and the held-out half. `images` (2,) has the number of images in each half.
    """

    files: Sequence[Sequence[Path]]
    split: Images | None = None
    wrong: dict[Subset, np.ndarray] = field(default_factory=dict)
    images: np.ndarray = field(default_factory=lambda: np.zeros(2, np.int64))
    classes: int = 0

    def count(self, subsets: Sequence[Subset]) -> None:
        """Counts the subsets that were not counted before, in one reading of the files.

        Raises:
            InputError: a file with a bad row, or files of other images or labels.
        """
        new = [subset for subset in dict.fromkeys(subsets) if subset not in self.wrong]
        if not new:
            return
        members = np.zeros((len(new), len(self.files)))
        for row, subset in enumerate(new):
            members[row, list(subset)] = 1
        total = np.zeros((len(new), 2, 2), np.int64)
        self.images[:] = 0
        for batch in means.sums(self.files, self.split):
            self.classes = batch.posteriors.shape[2]
            held_out = halves(batch.keys)
            self.images += np.bincount(held_out, minlength=2)
            total += count_wrong(batch.posteriors, batch.labels, held_out, members)
        self.wrong |= dict(zip(new, total, strict=True))

    def best(self, subsets: Sequence[Subset]) -> Subset:
        """The subset with the fewest errors in the choosing half: top-1, then top-5, then fewer nets."""
        return min(subsets, key=lambda subset: (*self.wrong[subset][:, 0], len(subset), subset))

    def record(self, subset: Subset, names: Sequence[str]) -> dict[str, Any]:
        """A line of the frame that `search` describes."""
        wrong = self.wrong[subset].astype(float)
        if self.classes <= TOP_K:
            wrong[1] = NAN
        choosing, images = (int(count) for count in self.images)
        record: dict[str, Any] = {"nets": len(subset), "runs": " + ".join(names[place] for place in subset)}
        record |= {"choosing_images": choosing}
        record |= {f"choosing_{name}": 100 * wrong[row, 0] / choosing for row, name in enumerate(ERRORS)}
        record |= {"images": images}
        for row, name in enumerate(ERRORS):
            if np.isnan(wrong[row, 1]):
                record |= dict.fromkeys((name, f"{name}_low", f"{name}_high"), NAN)
                continue
            ends = intervals.wilson(int(wrong[row, 1]), images)
            record |= {name: 100 * wrong[row, 1] / images, f"{name}_low": ends.low, f"{name}_high": ends.high}
        record |= {"all_images": choosing + images}
        return record | {f"all_{name}": 100 * wrong[row].sum() / (choosing + images) for row, name in enumerate(ERRORS)}


def halves(keys: Sequence[str]) -> np.ndarray:
    """(n,) int: 0 if the image helps to choose, 1 if it is held out. It depends on the key alone, not on the order."""
    return np.array([hashlib.sha256(key.encode(errors="surrogateescape")).digest()[0] & 1 for key in keys])


def count_wrong(sums: np.ndarray, labels: np.ndarray, held_out: np.ndarray, members: np.ndarray) -> np.ndarray:
    """Images wrong by each subset of nets: (M, 2, 2), top-1 and top-5 by half.

    Args:
        sums: (N, n, K) float64, posteriors of N nets, or sums of them.
        labels: (n,) true classes.
        held_out: (n,) 0 or 1, the half.
        members: (M, N), 1 where a net belongs to a subset.

    A class ranks before the true one if its sum over the subset is larger, or equal and its number smaller, as in
    `ranks.true_ranks`.
    """
    true = np.take_along_axis(sums, labels[None, :, None].astype(np.int64), axis=2)
    ahead = np.logical_or.reduce(sums >= true, axis=0)
    ahead[np.arange(len(labels)), labels] = False
    image, rival = np.nonzero(ahead)
    result = np.zeros((len(members), 2, 2), np.int64)
    starts = np.flatnonzero(np.r_[True, image[1:] != image[:-1]]) if len(image) else np.zeros(0, np.int64)
    while len(starts):
        # Whole images, as many as fit; the rest in the next round.
        limit = starts[0] + max(1, CELLS // len(members))
        taken = max(1, int(np.searchsorted(np.r_[starts[1:], len(image)], limit, side="right")))
        part = slice(starts[0], starts[taken] if taken < len(starts) else len(image))
        gaps = sums[:, image[part], rival[part]] - true[:, image[part], 0]
        total = members @ gaps
        before = (total > 0) | ((total == 0) & (rival[part] < labels[image[part]]))
        ranks = np.add.reduceat(before.view(np.int8), starts[:taken] - starts[0], axis=1, dtype=np.int32)
        half = held_out[image[starts[:taken]]]
        for row, least in enumerate(ERRORS.values()):
            wrong = ranks >= least
            result[:, row, 1] += wrong[:, half == 1].sum(axis=1)
            result[:, row, 0] += wrong[:, half == 0].sum(axis=1)
        starts = starts[taken:]
    return result


def search(scores: Scores, methods: Sequence[str] = ("dense",)) -> list[BeyondTable]:
    """Which of the runs with complete posteriors to fuse: "fusion", the chosen subsets, and "pairs", every two nets.

    Columns: `choice` (in "fusion"), `nets`, `runs`; `choosing_images` and `choosing_<error>`, of the half that chose;
    `images`, `<error>`, `<error>_low`, `<error>_high`, of the held-out half; `all_images` and `all_<error>`, of both
    halves, which is too low for the chosen subsets. All subsets of up to 14 nets are tried; with more nets, only a
    greedy path.

    Raises:
        InputError: fewer than two such runs, or posteriors of different images.
    """
    files, notes = complete(scores, methods)
    names = [run.name for run in files]
    if len(names) < 2:
        raise InputError(f"--search: {_too_few(names, methods)}; evaluate two or more")
    counter = ErrorCounter(list(files.values()), split_images(scores.dataset, SPLIT))
    everything = tuple(range(len(names)))
    singles = [(place,) for place in everything]
    pairs = list(combinations(everything, 2))
    published = {f"the paper's {len(s)} nets": s for s in _published(list(files), methods)}
    exhaustive = len(names) <= EXHAUSTIVE
    subsets: list[Subset] = [*singles, *pairs, *published.values(), everything]
    if exhaustive:
        subsets = [subset for size in everything for subset in combinations(everything, size + 1)]
    count = scores.dataset.counts[SPLIT]
    total = sum(map(len, files.values()))
    say(f"--search: {len(set(subsets)):,} subsets of {len(names)} nets, {total} files of {count:,} images")
    counter.count(subsets)
    if not counter.images.all():
        raise InputError(f"--search: {counter.images.sum()} images fall into one half; it needs more images")
    path = _greedy(len(names), counter)
    lines = {"best net": counter.best(singles), "best pair": counter.best(pairs), "greedy": counter.best(path)}
    if exhaustive:
        lines["best subset"] = counter.best(subsets)
    else:
        notes += (f"More than {EXHAUSTIVE} nets: larger subsets than pairs were sought greedily only.",)
    lines |= published | {f"all {len(names)} nets": everything}
    method = protocol.label_of(methods)
    about = f"{method.capitalize()} at the paper's Q. {setting(scores)}"
    return [_fusion(lines, path, names, counter, about, notes), _pairs(names, counter, about)]


def complete(scores: Scores, methods: Sequence[str]) -> tuple[dict[Run, list[Path]], tuple[str, ...]]:
    """The files of each run that has every method at every test scale of its S, and notes on the other runs."""
    views = {
        run: [View(run, q, method) for method in methods for q in run.scale.test_scales] for run in available(scores)
    }
    scores.rank_rows(views.values())
    result, asked, lacking = {}, list[File](), []
    for run, wanted in views.items():
        files = [scores.file(view) for view in wanted]
        asked += files
        if not all(file.present for file in files):
            lacking.append(run.name)
        elif not any(file.refused for file in files):
            result[run] = [file.path for file in files]
    notes = list(not_used(asked))
    if lacking:
        notes.append(f"Not all posteriors: `{advice.command('evaluate', *lacking, *advice.flags(methods))}`.")
    return result, tuple(notes)


def _too_few(names: Sequence[str], methods: Sequence[str]) -> str:
    what = f"all {' and '.join(methods)} posteriors at the paper's Q"
    return f"only {names[0]} has {what}" if names else f"no run has {what}"


def _published(runs: Sequence[Run], methods: Sequence[str]) -> list[Subset]:
    """The paper's own choices (Table 6) among these runs; the submission was dense only."""
    result = []
    for row in paper.rows(6):
        wanted = dict.fromkeys(view.run for view in row.views)
        if {view.method for view in row.views} == set(methods) and set(wanted) <= set(runs):
            result.append(tuple(sorted(runs.index(run) for run in wanted)))
    return result


def _greedy(nets: int, counter: ErrorCounter) -> list[Subset]:
    """A subset of each size: first the best net, then each time the net that helps most in the choosing half."""
    path = [counter.best([(place,) for place in range(nets)])]
    while len(path) < nets:
        larger = [tuple(sorted((*path[-1], place))) for place in range(nets) if place not in path[-1]]
        counter.count(larger)
        path.append(counter.best(larger))
    return path


def _fusion(
    lines: dict[str, Subset],
    path: Sequence[Subset],
    names: Sequence[str],
    counter: ErrorCounter,
    about: str,
    notes: tuple[str, ...],
) -> BeyondTable:
    records = [{"choice": choice, **counter.record(subset, names)} for choice, subset in lines.items()]
    shown = pd.DataFrame.from_records(records)
    steps = [{"choice": f"greedy, {len(subset)} nets", **counter.record(subset, names)} for subset in path]
    frame = pd.concat([shown, pd.DataFrame.from_records(steps)], ignore_index=True)
    choosing, held_out = (int(count) for count in counter.images)
    caption = (
        f"Nets chosen for the least top-1 error on {choosing:,} images (halves by a hash of the key), scored on the "
        f"other {held_out:,}, which did not choose; the paper's own choices beside them. {about}"
    )
    labels = shown.assign(
        runs=["all" if n == len(names) else r for n, r in zip(shown["nets"], shown["runs"], strict=True)]
    )
    short = MEASURES[TOP1].short
    chosen, everywhere = (
        numbers(Kind.NUMBER, f"{short}, {half}", "", f"{short}, {half}", shown[f"{half}_{TOP1}"])
        for half in ("choosing", "all")
    )
    columns = (*labels_of(labels, ("choice", "runs")), chosen, *measures_of(shown), everywhere)
    return BeyondTable(FUSION, "Which nets to fuse", caption, frame, columns, ("",) * len(shown), notes)


def _pairs(names: Sequence[str], counter: ErrorCounter, about: str) -> BeyondTable:
    """Every two nets; a page shows them as a triangle with the single nets on its diagonal."""
    places = range(len(names))
    records = [counter.record(subset, names) for size in (1, 2) for subset in combinations(places, size)]
    frame = pd.DataFrame.from_records(records)
    error = dict(zip(frame["runs"], frame[f"all_{TOP1}"], strict=True))
    columns = labels_of(pd.DataFrame({"run": names}), ("run",))
    values = {
        column: [
            error[names[row] if row == column else f"{names[column]} + {names[row]}"] if row >= column else NAN
            for row in places
        ]
        for column in places
    }
    least = min(error.values())
    for column, errors in values.items():
        cells = ["" if np.isnan(value) else number(value) for value in errors]
        best = [value == least for value in errors]
        top = f"{MEASURES[TOP1].heading} with"
        columns.append(column_of(Kind.NUMBER, top, names[column], names[column], errors, cells, best))
    caption = f"Top-1 error of every two nets fused, on all images; on the diagonal each alone. {about}"
    return BeyondTable(PAIRS, "Pairs of nets", caption, frame, tuple(columns), ("",) * len(names))
