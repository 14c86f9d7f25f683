"""The file that ILSVRC's test server scores: five devkit ids for each image, best first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from vggrepro.data.dataset import Dataset
from vggrepro.errors import InputError
from vggrepro.paper import TOP_K
from vggrepro.posteriors.files import Rows
from vggrepro.posteriors.means import average
from vggrepro.results.freshness import files_of
from vggrepro.results.scores import split_images
from vggrepro.runs.folder import RunFolder
from vggrepro.system.files import write_text


def lines(batches: Iterable[Rows], devkit_ids: Sequence[int]) -> list[str]:
    """`id id id id id` for each image in the order of its file name; equal posteriors in the order of classes.

    Args:
        batches: keys (file names) and posteriors (n, K).
        devkit_ids: (K,) the number 1-1000 of each class in the devkit.
    """
    ids = np.asarray(devkit_ids)
    found: list[tuple[str, str]] = []
    for batch in batches:
        best = np.argsort(-batch.posteriors, axis=1, kind="stable")[:, :TOP_K]
        found += [(key, " ".join(map(str, row))) for key, row in zip(batch.keys, ids[best].tolist(), strict=True)]
    return [line for _, line in sorted(found)]


def submit(folders: Sequence[RunFolder], methods: Sequence[str], split: str, dataset: Dataset, path: Path) -> int:
    """Averages the runs' posteriors of a split, all files alike (Sect. 4.4), and writes them as `write` does.

    Raises:
        InputError: a missing or stale file, posteriors of other data, no ILSVRC classes.
    """
    files = [file for folder in folders for file in files_of(folder, methods, split, dataset)]
    return write(path, average(files, split_images(dataset, split)), dataset)


def write(path: Path, batches: Iterable[Rows], dataset: Dataset) -> int:
    """Writes the submission file atomically; gives the number of images.

    Raises:
        InputError: the data set is not ILSVRC-2012's thousand classes.
    """
    if not dataset.devkit_ids:
        raise InputError(
            f"--submission: {dataset.folder} ('{dataset.name}') has no ILSVRC devkit ids; only ILSVRC-2012's thousand "
            "classes can be submitted"
        )
    result = lines(batches, dataset.devkit_ids)
    write_text(path, "".join(f"{line}\n" for line in result))
    return len(result)
