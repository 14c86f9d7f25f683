"""The command doctor: finds in seconds what is wrong with this machine, the data set or the runs.

Each check is independent: one that fails says so in its row, and the others go on. A heavy package is imported inside
its own check, so that a broken torch or torchvision is a diagnosis and no traceback.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from vggrepro.doctor import machine
from vggrepro.doctor.diagnosis import BROKEN, OK, WARNING, Diagnosis, guarded
from vggrepro.errors import InputError
from vggrepro.system.advice import command
from vggrepro.system.files import locked_by, read_json

if TYPE_CHECKING:
    from vggrepro.data.dataset import Dataset
    from vggrepro.runs.folder import RunFolder

SECONDS = 8.0  # for the weights of runs; what does not fit is named
DECODED = 8  # images of each split


def diagnose(data: Path, runs: Path, names: Sequence[str] = (), seconds: float = SECONDS) -> list[Diagnosis]:
    """All checks in order.

    Args:
        data: the data set's folder.
        runs: the folder of run folders.
        names: runs to check, without a limit of time; none: as many runs as `seconds` allow.
        seconds: time for the weights of runs.
    """
    checks: list[tuple[str, Callable[[], Diagnosis | list[Diagnosis]]]] = [
        ("python", machine.python),
        ("packages", machine.packages),
        ("extras", machine.extras),
        ("torch", machine.torch_),
        ("torchvision", machine.torchvision_),
        ("device", machine.device),
        ("precision", machine.precision),
        ("threads", machine.threads),
        ("memory", machine.memory),
        ("disk", lambda: machine.disk(data, runs)),
        ("data set", lambda: data_set(data)),
        ("runs", lambda: all_runs(data, runs, names, seconds)),
    ]
    diagnoses: list[Diagnosis] = []
    for name, check in checks:
        diagnoses += guarded(name, check)
    return diagnoses


# The data set


def data_set(data: Path) -> list[Diagnosis]:
    """Whether the data set opens, its images decode, and its classes are in the usual order."""
    from vggrepro.data import dataset as stage

    if not (data / stage.DATASET_JSON).is_file():
        try:
            stage.load(data)
        except InputError as error:
            return [Diagnosis(WARNING, "data set", str(error))]
    dataset = stage.load(data)
    counts = ", ".join(f"{count:,} {split}" for split, count in dataset.counts.items() if count)
    result = f"{dataset.name}: {counts}; {len(dataset.classes):,} classes, preset {dataset.preset}"
    about = Diagnosis(OK, "data set", f"{result}; fingerprint {dataset.fingerprint[:16]}")
    diagnoses = [
        about,
        *guarded("shards", lambda: shards(dataset)),
        *guarded("class order", lambda: class_order(dataset)),
    ]
    return diagnoses


def shards(dataset: Dataset) -> Diagnosis:
    """Whether every shard opens and some images of each split decode. `dataset --verify` compares checksums."""
    from vggrepro.data.dataset import DATASET_JSON, Split

    recorded = read_json(dataset.folder / DATASET_JSON).get("shards", {})
    missing = [name for name in recorded if not (dataset.folder / name).is_file()]
    if missing:
        lost = f"{missing[0]} is missing" + (f", {len(missing) - 1} more" if len(missing) > 1 else "")
        return Diagnosis(BROKEN, "shards", lost, "prepare the data set again")
    decoded = 0
    for name, count in dataset.counts.items():
        if count:
            split = Split(dataset, name)
            for place in range(DECODED):
                split.image(place * (len(split) - 1) // (DECODED - 1))
                decoded += 1
    return Diagnosis(
        OK, "shards", f"{len(recorded)} open, {decoded} images decode", "checksums: vggrepro dataset --verify"
    )


def class_order(dataset: Dataset) -> Diagnosis:
    """Whether the classes are sorted by wnid, as released nets need them; the first validation images show it."""
    from vggrepro.data import synsets
    from vggrepro.data.dataset import Split

    classes = dataset.classes
    if not all(synsets.WNID.fullmatch(name) for name in classes):
        sorted_ = "sorted" if list(classes) == sorted(classes) else "not sorted"
        return Diagnosis(OK, "class order", f"names, {sorted_} (no wnids)")
    if list(classes) != sorted(classes):
        return Diagnosis(
            WARNING, "class order", "the wnids are not sorted: imported nets name wrong classes", "prepare it again"
        )
    result = "sorted by wnid"
    if dataset.devkit_ids and dataset.counts.get("val") and not dataset.subset:
        split = Split(dataset, "val")
        found: dict[int, int] = {}
        for place in range(len(split)):
            number = synsets.val_number(split.key(place).rpartition("/")[2])
            if number in synsets.FIRST_IMAGES:
                found[number] = int(split.labels[place])
            if len(found) == len(synsets.FIRST_IMAGES) or place > 1000:
                break
        synsets.check_first_images(found, str(dataset.folder))
        if found:
            result += f"; the first {len(found)} validation images have the known classes"
    return Diagnosis(OK, "class order", result)


# Runs


def all_runs(data: Path, runs: Path, names: Sequence[str], seconds: float) -> list[Diagnosis]:
    """Each run's diagnoses, until the time is spent."""
    from vggrepro.data import dataset as stage
    from vggrepro.runs.folder import existing, find_run

    chosen = [find_run(runs, name) for name in names] or existing(runs)
    if not chosen:
        return [Diagnosis(OK, "runs", f"none in {runs}", f"{command('train', 'A')}, or vggrepro import")]
    try:
        dataset = stage.load(data)
    except InputError:
        dataset = None
    end, diagnoses, skipped = time.monotonic() + seconds, [], []
    for folder in chosen:
        if not names and time.monotonic() > end:
            skipped.append(folder.name)
            continue
        diagnoses += guarded(folder.name, lambda folder=folder: one_run(folder, dataset))  # type: ignore[misc]
    if skipped:
        again = command("doctor", *skipped[:3])
        diagnoses.append(Diagnosis(OK, "further runs", f"not checked, to save time: {', '.join(skipped)}", again))
    return diagnoses


def one_run(folder: RunFolder, dataset: Dataset | None) -> list[Diagnosis]:
    """Whether its config and weights are whole (hash, names, shapes, finite values); tries imported ones on images."""
    config = folder.config()
    if not folder.finished:
        holder = locked_by(folder.path)
        text = f"in work: {holder}" if holder else "not finished"
        return [Diagnosis(OK, folder.name, text, "" if holder else f"{command('status')} says how to resume it")]
    from vggrepro.doctor import sanity
    from vggrepro.nets.trained import Trained

    trained = Trained.load(folder)
    bad = [name for name, tensor in trained.tensors.items() if not bool(tensor.isfinite().all())]
    if bad:
        return [
            Diagnosis(
                BROKEN, folder.name, f"{bad[0]} holds values that are no finite numbers", "train or import it again"
            )
        ]
    origin = f"; {config.origin}" if config.origin else ""
    count = sum(tensor.numel() for tensor in trained.tensors.values())
    diagnoses = [Diagnosis(OK, folder.name, f"finished, {count:,} weights, all finite{origin}")]
    if config.imported and dataset is not None:
        diagnoses += guarded(folder.name, lambda: sanity.check(folder, trained, dataset))
    return diagnoses
