"""The fuse stage: errors of runs whose posteriors are averaged (Sect. 4.4)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from vggrepro import fusion, paper, posteriors, protocol
from vggrepro.dataset import Dataset
from vggrepro.errors import InputError
from vggrepro.posteriors import Score, shape_of
from vggrepro.runs import RunFolder
from vggrepro.shelf import SPLIT, Facts, flags, refusal, split_images


def fuse_runs(
    folders: Sequence[RunFolder], methods: Sequence[str], split: str = SPLIT, dataset: Dataset | None = None
) -> pd.DataFrame:
    """Errors of each run's averaged posteriors and of the average of all (Sect. 4.4).

    A run's files are those of its `Scale.test_scales` by each of `methods`; every file has equal weight and is read
    once. They must hold the images of `dataset`.

    Returns:
        columns `run`, `method`, `Q`, `images`, `top1_error`, `top5_error` (per cent, NaN if K <= 5); a row a
        run and, for two or more, a last row whose `run` is "A + B + …".

    Raises:
        InputError: no run, a missing, stale or damaged file, files of different data.
    """
    if not folders:
        raise InputError("fuse: no runs given; name at least one evaluated run")
    parts = [(folder, files_of(folder, methods, split)) for folder in dict.fromkeys(folders)]
    everything = [path for _, paths in parts for path in paths]
    prints: dict[str, Path] = {}
    for path in everything:
        if not shape_of(path).foreign:
            prints.setdefault(posteriors.read_origin(path).fingerprint, path)
    if len(prints) > 1:
        first, second = list(prints.values())[:2]
        raise InputError(f"{first} and {second} come from different data sets; evaluate both runs on one")
    if dataset and prints and prints.keys() != {dataset.fingerprint}:
        path = next(iter(prints.values()))
        raise InputError(f"{path} comes from another data set than {dataset.folder}; give its data set with --data")
    groups = [paths for _, paths in parts]
    names = [folder.name for folder, _ in parts]
    scales = [_test_scales(folder) for folder, _ in parts]
    if len(parts) > 1:
        groups.append(everything)
        names.append(" + ".join(names))
        scales.append(tuple(sorted({q for qs in scales for q in qs})))
    images = split_images(dataset, split) if dataset else None
    scores = fusion.scores(groups, images)
    return pd.DataFrame([_record(*row, methods) for row in zip(names, scales, scores, strict=True)])


def _test_scales(folder: RunFolder) -> tuple[int, ...]:
    return paper.Scale.parse(str(folder.config()["scale"])).test_scales


def files_of(folder: RunFolder, methods: Sequence[str], split: str) -> list[Path]:
    """The run's posterior files, all there and none stale, else InputError with the command."""
    weights = folder.weights_hash() if folder.finished else None
    facts = Facts(folder, folder.config(), 0, weights)
    command = f"vggrepro evaluate {folder.name} {flags(methods)}" + ("" if split == SPLIT else f" --split {split}")
    paths = []
    for method in methods:
        for q in _test_scales(folder):
            path = protocol.file_path(folder.path, split, method, q)
            if not path.is_file():
                raise InputError(f"{path} does not exist; run '{command}'")
            if not shape_of(path).foreign:
                reason = refusal(posteriors.read_origin(path), facts, split, method, q)
                if reason:
                    raise InputError(f"{path} is stale ({reason}); renew it with '{command}'")
            paths.append(path)
    return paths


def _record(name: str, qs: Iterable[int], score: Score, methods: Sequence[str]) -> dict[str, Any]:
    record = {"run": name, "method": protocol.label_of(methods), "Q": ", ".join(map(str, qs)), "images": score.images}
    return record | {"top1_error": score.top1, "top5_error": float("nan") if score.top5 is None else score.top5}
