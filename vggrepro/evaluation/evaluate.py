"""The evaluate stage: posteriors of a run's net over a split, dense or multi-crop, at each Q (Sect. 3.2).

An image is decoded once for all its Q, methods and flips. Posteriors are written in parts, which are merged at the
end: an interruption loses at most the current part.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import torch

from vggrepro import __version__
from vggrepro.data.dataset import Dataset, Split
from vggrepro.data.images import ordered
from vggrepro.data.transfer_sets.base import Pictures
from vggrepro.errors import InputError
from vggrepro.evaluation.evaluator import Batcher, Evaluator
from vggrepro.evaluation.images import ImageAtQ
from vggrepro.nets import cost
from vggrepro.nets.trained import Trained
from vggrepro.paper import Architecture, Scale, real_pixels
from vggrepro.posteriors import files as posterior_files
from vggrepro.posteriors import means
from vggrepro.posteriors.files import Origin, Rows
from vggrepro.posteriors.protocol import Protocol
from vggrepro.runs.config import RunConfig
from vggrepro.runs.folder import RunFolder
from vggrepro.system import processes
from vggrepro.system.commit import commit
from vggrepro.system.devices import Machine
from vggrepro.system.files import lock
from vggrepro.system.progress import Track, say

# Images of a part: an interruption loses at most this work. A part of a full-size net takes minutes on a CPU; on a GPU,
# where larger parts make fuller forward passes, it takes seconds.
PART_IMAGES = {"cpu": (64, 256), "cuda": (4096, 4096)}
PART_MACS = 10**12  # a part between the two has this many MACs, counted as crops
AHEAD_BYTES = {"cpu": 64 << 20, "cuda": 512 << 20}  # of images that wait for the net


def evaluate(folder: RunFolder, dataset: Dataset, protocol: Protocol, machine: Machine) -> pd.DataFrame:
    """Writes the run's missing or stale posterior files; gives the errors of each Q and of their average.

    Columns: run, method, Q, top1_error, top5_error (%), images; of unlabelled images run, method, Q, images, file.

    Raises:
        InputError: unfinished run, another number of classes, no such split, val images without labels.
    """
    wanted = wanted_files(folder, dataset, protocol, machine)
    scale = folder.config().scale
    with processes.first_process(lock(folder.path, f"vggrepro evaluate {folder.name}")):
        missing = missing_files(folder, protocol, wanted)
        if missing:
            split = Split(dataset, protocol.split)
            _require_labels(split)
            say_stale(folder, protocol, missing)
            _compute(folder, split, protocol, machine, {key: wanted[key] for key in missing})
        else:
            say(f"evaluate {folder.name}: {', '.join(protocol.methods)} is up to date")
        if processes.is_first():
            remove_parts([protocol.path(folder.path, *key) for key in wanted])
        processes.barrier()
    if missing and processes.is_first() and protocol.split == "val":
        _warn_of_devkit_order(folder, dataset, protocol.path(folder.path, *next(iter(wanted))))
    return errors(folder, scale, protocol)


def wanted_files(
    folder: RunFolder, dataset: Dataset, protocol: Protocol, machine: Machine
) -> dict[tuple[str, int], Origin]:
    """The origin that each posterior file of a protocol must have, by (method, Q).

    Raises:
        InputError: unfinished run, another number of classes or another order of them.
    """
    folder.require_finished()
    config = folder.config()
    if config.classes != len(dataset.classes):
        raise InputError(
            f"{folder.name} was trained for {config.classes} classes, {dataset.folder} has {len(dataset.classes)}; "
            "name the run's data set with --data"
        )
    if config.class_names not in (None, dataset.classes):
        raise InputError(
            f"{folder.name} was trained for other classes or another order of them than {dataset.folder} has; name the "
            "run's data set with --data"
        )
    if config.dataset.fingerprint not in (None, dataset.fingerprint):
        say(f"note: {folder.name} was trained on another data set than {dataset.folder}")
    keys = [(method, q) for method in protocol.methods for q in protocol.scales(method, config.scale)]
    weights_hash = folder.weights_hash()
    return {key: _origin(folder, config, weights_hash, dataset, protocol, machine, *key) for key in keys}


def missing_files(
    folder: RunFolder, protocol: Protocol, wanted: Mapping[tuple[str, int], Origin]
) -> dict[tuple[str, int], str]:
    """Which of the files are not there or stale, each with why it is stale; empty if it is not there."""
    reasons = {
        key: _reason(protocol.path(folder.path, *key), origin, protocol.exact_precision)
        for key, origin in wanted.items()
    }
    return {key: reason for key, reason in reasons.items() if reason is not None}


def say_stale(folder: RunFolder, protocol: Protocol, missing: Mapping[tuple[str, int], str]) -> None:
    """Says which of the `missing_files` are stale, and why."""
    for key, reason in missing.items():
        if reason:
            name = protocol.path(folder.path, *key).name
            say(f"evaluate {folder.name}: {name} is stale ({reason}) and is computed again")


def _require_labels(split: Split) -> None:
    """InputError if a split that errors are measured on has an image without a label."""
    if split.name != "test" and (split.labels < 0).any():
        key = split.key(int((split.labels < 0).argmax()))
        raise InputError(
            f"{split.folder}: image '{key}' of {split.name} has no label, which errors need; prepare unlabelled images "
            "as test and give --split test"
        )


def _warn_of_devkit_order(folder: RunFolder, dataset: Dataset, path: Path) -> None:
    """Warns if the net's classes are in the order of the devkit's ids, as some released ImageNet nets have them."""
    if not dataset.devkit_ids:
        return
    number = np.array(dataset.devkit_ids) - 1  # the place of each class in such a net
    right = devkit = images = 0
    for batch in posterior_files.read(path):
        best = batch.posteriors.argmax(1)
        right, devkit = right + int((best == batch.labels).sum()), devkit + int((best == number[batch.labels]).sum())
        images += len(best)
    if devkit > 10 and devkit > 5 * right:
        say(
            f"warning: {folder.name} gets {100 * right / images:.1f} % of the images right, but "
            f"{100 * devkit / images:.1f} % if its classes are in the order of the devkit's ids: its fc8 has the wrong "
            "order of classes"
        )


def _origin(
    folder: RunFolder,
    config: RunConfig,
    weights_hash: str,
    dataset: Dataset,
    protocol: Protocol,
    machine: Machine,
    method: str,
    q: int,
) -> Origin:
    seen = protocol.method(method)
    return Origin(
        run=folder.name,
        weights=weights_hash,
        dataset=dataset.name,
        fingerprint=dataset.fingerprint,
        preset=dataset.preset,
        split=protocol.split,
        method=method,
        q=q,
        q_pixels=real_pixels(q, config.crop),
        flip=seen.flip,
        grid=seen.grid,
        pooling=seen.pooling,
        resample=config.recipe.resample,
        precision=machine.precision,
        version=__version__,
        commit=commit(),
        input=config.net_input,
    )


def _reason(path: Path, origin: Origin, exact_precision: bool) -> str | None:
    """Why the final file was not made from `origin`, empty if it is not there; None if it was."""
    if not path.is_file():
        return ""
    try:
        was = posterior_files.read_origin(path)
        reason = was.stale(dataclasses.asdict(origin))
        if exact_precision and was.precision != origin.precision:
            reason = reason or f"{was.precision}, not {origin.precision}"
    except InputError:
        return "damaged"
    return reason


def part_images(net: Architecture, device: torch.device) -> int:
    """Images of a part, by the net's cost. Interruptions do not change which images share a forward pass."""
    fewest, most = PART_IMAGES.get(device.type, PART_IMAGES["cpu"])
    return max(fewest, min(most, PART_MACS // cost.crop_macs(net)))


def _compute(
    folder: RunFolder, split: Split, protocol: Protocol, machine: Machine, tasks: dict[tuple[str, int], Origin]
) -> None:
    """Computes the parts of all tasks, decoding each image once, then merges each task's parts into its file."""
    trained = Trained.load(folder)
    evaluator = Evaluator(trained, machine)
    size = part_images(trained.config.architecture, machine.device)
    bounds = [(start, min(start + size, len(split))) for start in range(0, len(split), size)]
    folders = {key: parts_folder(protocol.path(folder.path, *key)) for key in tasks}
    todo = {
        number: [key for key in tasks if not _part_done(folders[key], start, tasks[key], stop - start)]
        for number, (start, stop) in enumerate(bounds)
        if number % processes.world() == processes.rank()
    }
    total = sum((bounds[number][1] - bounds[number][0]) * len(tasks) for number in todo)
    left = sum((bounds[number][1] - bounds[number][0]) * len(keys) for number, keys in todo.items())
    label = f"evaluate {folder.name} ({', '.join(protocol.methods)})"
    stream = decoded(split, [(range(*bounds[number]), keys) for number, keys in todo.items()], evaluator)
    with Track(label, total, "views", done=total - left) as track:
        for number, keys in todo.items():
            start, stop = bounds[number]
            batchers = {key: Batcher(evaluator, protocol.method(key[0])) for key in keys}
            for scales in islice(stream, stop - start):
                for (_, q), batcher in batchers.items():
                    batcher.add(scales[q])
                track.advance(len(keys))
            for key, batcher in batchers.items():
                part = Rows(split.keys(start, stop), split.labels[start:stop], batcher.finish())
                posterior_files.write(part_path(folders[key], start), [part], evaluator.classes, tasks[key])
    processes.barrier()
    if processes.is_first():
        for key, origin in tasks.items():
            paths = [part_path(folders[key], start) for start, _ in bounds]
            posterior_files.write(protocol.path(folder.path, *key), _chained(paths, size), evaluator.classes, origin)


def decoded(
    split: Split | Pictures, parts: Sequence[tuple[Sequence[int], Collection[tuple[str, int]]]], evaluator: Evaluator
) -> Iterator[dict[int, ImageAtQ]]:
    """Each image of the parts at its Q, decoded once, in threads that run ahead of the net by about `AHEAD_BYTES`."""

    def load(task: tuple[int, list[int]]) -> dict[int, ImageAtQ]:
        image, qs = task
        return evaluator.rescaler.at_each(split.image(image), qs) if qs else {}

    tasks = ((image, sorted({q for _, q in keys})) for images, keys in parts for image in images)
    qs = sorted({q for _, keys in parts for _, q in keys})
    bytes_an_image = evaluator.rescaler.bytes_at_each(split.widths, split.heights, qs)
    machine = evaluator.machine
    ahead = AHEAD_BYTES.get(machine.device.type, AHEAD_BYTES["cpu"]) / max(bytes_an_image, 1)
    return ordered(load, tasks, machine.workers, max(machine.workers, int(ahead)))


def parts_folder(path: Path) -> Path:
    """Where the parts of a posterior file are kept until they are merged."""
    return path.parent / "parts" / path.stem


def remove_parts(paths: list[Path]) -> None:
    """Removes the parts of finished files, also those that an interruption after merging left."""
    for path in paths:
        shutil.rmtree(parts_folder(path), ignore_errors=True)
        with suppress(OSError):  # not there, or the parts of other files are in it
            parts_folder(path).parent.rmdir()


def part_path(folder: Path, start: int) -> Path:
    """The file of the part that begins at image `start`. Other devices make parts of other sizes: see `_part_done`."""
    return folder / f"from-{start:08}.parquet"


def _part_done(folder: Path, start: int, origin: Origin, images: int) -> bool:
    """Whether a part of exactly this origin and size was written before; other parts are overwritten."""
    path = part_path(folder, start)
    if not path.is_file():
        return False
    try:
        was = posterior_files.read_origin(path)
    except InputError:
        return False
    if pq.read_metadata(path).num_rows != images:
        return False
    return dataclasses.replace(was, commit="", version="") == dataclasses.replace(origin, commit="", version="")


def _chained(paths: list[Path], rows: int) -> Iterator[Rows]:
    for path in paths:
        yield from posterior_files.read(path, rows)


def errors(folder: RunFolder, scale: Scale, protocol: Protocol) -> pd.DataFrame:
    """Errors of posterior files that exist, one row for each method and Q, then the average over Q.

    Of images without labels, the files and how many images they hold.
    """
    rows: list[dict[str, Any]] = []
    for method in protocol.methods:
        qs = protocol.scales(method, scale)
        if protocol.split == "test":
            for q in qs:
                path = protocol.path(folder.path, method, q)
                row = {"run": folder.name, "method": method, "Q": str(q)}
                rows.append(row | {"images": pq.read_metadata(path).num_rows, "file": str(path)})
            continue
        paths = {str(q): [protocol.path(folder.path, method, q)] for q in qs}
        if len(qs) > 1:
            paths[",".join(map(str, qs))] = [path for part in paths.values() for path in part]
        for label, score in zip(paths, means.scores(list(paths.values())), strict=True):
            row = {"run": folder.name, "method": method, "Q": label}
            rows.append(row | {"top1_error": score.top1, "top5_error": score.top5, "images": score.images})
    return pd.DataFrame(rows)
