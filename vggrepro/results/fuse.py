"""The fuse stage: errors of runs whose posteriors are averaged (Sect. 4.4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vggrepro.data.dataset import Dataset
from vggrepro.errors import InputError
from vggrepro.posteriors import files as posterior_files
from vggrepro.posteriors import means, protocol
from vggrepro.posteriors.files import shape_of
from vggrepro.posteriors.protocol import SPLIT
from vggrepro.posteriors.ranks import Score, score_of
from vggrepro.results import intervals
from vggrepro.results.columns import ERRORS, MEASURES
from vggrepro.results.freshness import files_of
from vggrepro.results.scores import split_images
from vggrepro.runs.folder import RunFolder


@dataclass(frozen=True, slots=True)
class Ranked:
    """Runs and, of two or more, their fusion: names, Q, and (images,) ranks of the true classes, 0 is best."""

    names: list[str]
    scales: list[tuple[int, ...]]
    ranks: list[np.ndarray]
    classes: int
    methods: Sequence[str]

    def errors(self) -> pd.DataFrame:
        """A row a run and a last one of the fusion; columns as `fuse_runs` says."""
        scored = [score_of(ranks, self.classes) for ranks in self.ranks]
        rows = zip(self.names, self.scales, scored, strict=True)
        return pd.DataFrame([_record(*row, self.methods) for row in rows])

    def differences(self) -> pd.DataFrame:
        """Each two of them on the same images, by each measure.

        Returns:
            columns `first`, `second`, `measure`, `difference` (first - second, points), `low`, `high` (its 95 %
            interval, Tango's), `p` (McNemar's exact one, uncorrected), `only_first`, `only_second` (images wrong in
            that one alone).
        """
        records = []
        for (first, a), (second, b) in combinations(zip(self.names, self.ranks, strict=True), 2):
            for name, least in ERRORS.items():
                if self.classes > least:
                    made = intervals.compare(a >= least, b >= least)
                    record: dict[str, Any] = {"first": first, "second": second, "measure": MEASURES[name].short}
                    record |= {"difference": made.difference, "low": made.low, "high": made.high, "p": made.p}
                    records.append(record | {"only_first": made.only_a, "only_second": made.only_b})
        return pd.DataFrame(records)


def fuse_runs(
    folders: Sequence[RunFolder], methods: Sequence[str], split: str = SPLIT, dataset: Dataset | None = None
) -> pd.DataFrame:
    """Errors of each run's averaged posteriors and of the average of all (Sect. 4.4).

    Returns:
        columns `run`, `method`, `Q`, `images`, `top1_error`, `top5_error` (per cent, NaN if K <= 5); a row a
        run and, for two or more, a last row whose `run` is "A + B + …".

    Raises:
        InputError: as `rank_runs`.
    """
    return rank_runs(folders, methods, split, dataset).errors()


def rank_runs(
    folders: Sequence[RunFolder], methods: Sequence[str], split: str = SPLIT, dataset: Dataset | None = None
) -> Ranked:
    """Ranks of the true classes by each run's averaged posteriors and by the average of all (Sect. 4.4).

    A run's files are those of its `Scale.test_scales` by each of `methods`; every file has equal weight and is read
    once. They must hold the images of `dataset`.

    Raises:
        InputError: no run, a missing, stale or damaged file, files of different data.
    """
    if not folders:
        raise InputError("fuse: no runs given; name at least one evaluated run")
    parts = [(folder, files_of(folder, methods, split, dataset)) for folder in dict.fromkeys(folders)]
    everything = [path for _, paths in parts for path in paths]
    if dataset is None:
        _require_one_data_set(everything)
    groups = [paths for _, paths in parts]
    names = [folder.name for folder, _ in parts]
    scales = [_test_scales(folder) for folder, _ in parts]
    if len(parts) > 1:
        groups.append(everything)
        names.append(" + ".join(names))
        scales.append(tuple(sorted({q for qs in scales for q in qs})))
    images = split_images(dataset, split) if dataset else None
    found = means.rank_classes(groups, images)
    means.raise_first(found.bad, everything)
    assert found.images is not None
    ranks = [found.ranks[frozenset(group)] for group in groups]
    return Ranked(names, scales, ranks, found.images.classes, methods)


def _test_scales(folder: RunFolder) -> tuple[int, ...]:
    return folder.config().scale.test_scales


def _require_one_data_set(paths: Iterable[Path]) -> None:
    """InputError if two files of ours come from different data sets."""
    prints = {posterior_files.read_origin(path).fingerprint: path for path in paths if not shape_of(path).foreign}
    if len(prints) > 1:
        first, second = list(prints.values())[:2]
        raise InputError(f"{first} and {second} come from different data sets; evaluate both runs on one")


def _record(name: str, qs: Iterable[int], score: Score, methods: Sequence[str]) -> dict[str, Any]:
    record = {"run": name, "method": protocol.label_of(methods), "Q": ", ".join(map(str, qs)), "images": score.images}
    return record | {"top1_error": score.top1, "top5_error": float("nan") if score.top5 is None else score.top5}
