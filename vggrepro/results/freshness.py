"""Decides whether a posterior file may be used for its run and data set, and if not, why not.

Tables, `fuse` and submissions all ask this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vggrepro import paper
from vggrepro.data.dataset import Dataset
from vggrepro.errors import InputError
from vggrepro.paper import Run, View
from vggrepro.posteriors import files as posterior_files
from vggrepro.posteriors import protocol
from vggrepro.posteriors.files import OTHER_DATA, Origin, Shape, shape_of
from vggrepro.posteriors.protocol import SPLIT
from vggrepro.runs.config import RunConfig
from vggrepro.runs.folder import RunFolder
from vggrepro.system import advice


@dataclass(frozen=True, slots=True)
class Facts:
    """What a run's folder says about it.

    `config` is None without config.json, `epochs` without readable metrics, `weights` without weights; `damaged` says
    which file cannot be read.
    """

    folder: RunFolder
    config: RunConfig | None
    epochs: int | None
    weights: str | None
    damaged: str = ""


def facts_of(folder: RunFolder) -> Facts:
    """What a run's folder says. A damaged file is recorded, not raised: the rows of the other runs are still made."""
    weights = folder.weights_hash() if folder.trained else None
    config, epochs, damaged = None, None, ""
    try:
        config = folder.config() if folder.config_path.is_file() else None
        epochs = len(folder.epochs())
    except InputError as error:
        damaged = str(error)
    return Facts(folder, config, epochs, weights, damaged)


def checked(
    path: Path, facts: Facts, view: View, split: str, dataset: Dataset | None = None
) -> tuple[Shape, Origin | None, str | None]:
    """A posterior file's size, what it was made of (None: by another tool), and why it must not be used (None: it may).

    Args:
        path: a file that is there.
        facts: the run's, as it is now.
        view: the run, method and Q that the file is to stand for.
        split: the split that it is to stand for.
        dataset: the data set that it must be of; None: any.

    Raises:
        InputError: the file is damaged.
    """
    shape = shape_of(path)
    origin = None if shape.foreign else posterior_files.read_origin(path)
    reason = misplaced(facts, view.run)
    if origin and not reason:
        reason = _refusal(origin, facts, view, split, dataset)
    return shape, origin, reason


def misfit(shape: Shape, dataset: Dataset, split: str) -> str | None:
    """Why a file of this size cannot be of a split of the data set, or None."""
    if shape.classes != len(dataset.classes):
        return f"{shape.classes} classes instead of {len(dataset.classes)}"
    if shape.rows != dataset.counts[split]:
        return f"{shape.rows} images instead of {dataset.counts[split]}"
    return None


def _refusal(origin: Origin, facts: Facts, view: View, split: str, dataset: Dataset | None) -> str | None:
    """Why a file of this origin must not be used for the run as it is now, or None."""
    if facts.weights is None and facts.folder.checkpoint_path.exists():
        return "earlier weights, while the run is being trained again"
    expected: dict[str, Any] = {"split": split, "method": view.method, "q": view.q}
    if facts.weights is not None:
        expected["weights"] = facts.weights
    if facts.config is not None:
        expected["q_pixels"] = paper.real_pixels(view.q, facts.config.crop)
        expected["input"] = facts.config.net_input
        expected["resample"] = facts.config.recipe.resample
    if dataset is not None:
        expected["fingerprint"] = dataset.fingerprint
    return origin.stale(expected)


def misplaced(facts: Facts, run: Run) -> str | None:
    """Why the folder does not hold the run that its name says, or None."""
    if facts.config is None:
        return None
    here = facts.config.run
    return None if here == run else f"{here.name} by the run's config.json"


def files_of(folder: RunFolder, methods: Sequence[str], split: str, dataset: Dataset | None = None) -> list[Path]:
    """The run's posterior files of its `Scale.test_scales` by each method, all there and none refused.

    Raises:
        InputError: a file is missing, damaged or must not be used; the message says how to renew it.
    """
    facts = facts_of(folder)
    run = folder.config().run
    words = [advice.run_name(folder.path), *advice.flags(methods)]
    words += [] if split == SPLIT else ["--split", split]
    command = advice.command("evaluate", *words)
    paths = []
    for view in (View(run, q, method) for method in methods for q in run.scale.test_scales):
        path = protocol.file_path(folder.path, split, view.method, view.q)
        if not path.is_file():
            raise InputError(f"{path} does not exist; run '{command}'")
        shape, _, reason = checked(path, facts, view, split, dataset)
        if dataset and shape.classes != (count := len(dataset.classes)):
            raise InputError(
                f"{path} has {shape.classes} classes, {dataset.folder} {count}; give its data set with --data"
            )
        if reason == OTHER_DATA and dataset:
            raise InputError(f"{path} comes from another data set than {dataset.folder}; give its data set with --data")
        if reason:
            raise InputError(f"{path} is stale ({reason}); renew it with '{command}'")
        paths.append(path)
    return paths
