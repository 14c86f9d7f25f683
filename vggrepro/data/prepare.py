"""The prepare stage: a source of images becomes a dataset folder, in one pass with flat memory.

Each shard covers a fixed stretch of the source, is renamed into place when complete, and leaves its sums in
`prepare.json`; an interrupted preparation continues with the first missing shard and ends in the same files.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from vggrepro import recipe
from vggrepro.data.dataset import (
    DATASET_JSON,
    DATASET_VERSION,
    SCHEMA,
    Dataset,
    Split,
    left_out,
    load,
    read_shard,
    turned,
)
from vggrepro.data.images import TURNS, BadImage, decode_new, ordered
from vggrepro.data.rescaling import rescale
from vggrepro.data.sources import Example, Source
from vggrepro.errors import InputError
from vggrepro.paper import JITTER, S256, TOP_K, real_pixels
from vggrepro.system.files import Hashed, atomic, lock, read_json, write_json
from vggrepro.system.progress import Track, say

STATE_JSON = "prepare.json"
SHARD_EXAMPLES = 2000  # of the source in a shard: an interruption loses at most that much work
BATCH_ROWS = 250  # at most, held at once; fewer of large images
BATCH_BYTES = 64 << 20
STORED = {"quality": 95, "subsampling": "4:2:0"}  # JPEG, of the smaller copies that --store-side keeps


@dataclass(frozen=True, slots=True)
class Measured:
    """An example and what was found when it was decoded; `bad` says why it does not decode."""

    example: Example
    width: int = 0
    height: int = 0
    mean: np.ndarray | None = None  # (3,) float64, RGB 0-255
    moment: np.ndarray | None = None  # (3, 3) float64, mean of outer products
    sha256: str = ""  # of the bytes to be stored
    kind: str = ""  # format and colour mode, such as "JPEG RGB"
    turned: bool = False  # its EXIF asks for a turn, which is not made
    bad: str = ""


def prepare(
    source: Source,
    folder: Path,
    preset: str = "paper",
    *,
    skip_bad: bool = False,
    allow_few_classes: bool = False,
    store_side: int = 0,
    workers: int = 2,
) -> Dataset:
    """Writes `source` to `folder` as a data set and returns it; if it is there already, nothing is written.

    The mean RGB and the RGB covariance are those of the training split, each image counting equally, since each
    gives one crop an epoch whatever its size. Of a source that is `val_only` they are those of the validation images:
    dataset.json says so ("statistics": "val"), and nothing is trained on it.

    Args:
        store_side: keep training images whose shorter side is longer than this as JPEG copies of this shorter side
            (pixels), which load faster; 0 keeps the original bytes. Other splits always keep theirs, since
            evaluation needs them in several sizes.

    Raises:
        InputError: the folder holds another data set, a corrupt image (unless `skip_bad`), too few classes for a
            top-5 error (unless `allow_few_classes`), a class without images, smaller copies of no training images.
    """
    plan = _plan(source, preset, store_side, allow_few_classes)
    splits = [split for split in ("train", "val", "test") if source.count(split)]  # refuses an empty class
    plan["contents"] = source.contents()
    if done := _already(folder, plan):
        return done
    total = sum(source.count(split) for split in splits)
    there = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
    if STATE_JSON not in there and (other := [name for name in there if name != "lock"]):
        raise InputError(f"{folder} is not empty (it has {other[0]}); choose another folder with --to")
    with lock(folder, "vggrepro prepare"):
        state = _resume(folder, plan)
        finished = sum(shard["examples"] for shard in state["shards"].values())
        if finished:
            say(f"prepare: resuming, {finished:,} of {total:,} images are done")
        try:
            with Track(f"prepare {source.name}", total, done=finished) as track:
                for split in splits:
                    _write_split(source, split, folder, state, track, skip_bad, store_side, workers)
        except InputError:
            if not state["shards"]:
                (folder / STATE_JSON).unlink()  # nothing was written yet: remove the empty folder
            raise
        return _finish(source, folder, state, splits)


def _plan(source: Source, preset: str, store_side: int, allow_few_classes: bool) -> dict[str, Any]:
    """What is to be prepared. A finished or interrupted preparation is recognised by it.

    Raises:
        InputError: an unknown preset, too few classes, a `store_side` that no training can use.
    """
    if store_side and source.val_only:
        raise InputError("prepare: --store-side is for training images, --val-only leaves them out; give one of them")
    crop = recipe.load(preset).crop  # refuses an unknown name before an hour of work
    least, most = real_pixels(S256.high, crop), real_pixels(JITTER.high, crop)
    if 0 < store_side < least:
        raise InputError(
            f"prepare: --store-side {store_side} suits no training scale: in real pixels preset {preset} needs {least} "
            f"for S = 256 and {most} for S = [256;512]"
        )
    if len(source.classes) <= TOP_K and not allow_few_classes:
        raise InputError(
            f"prepare: {len(source.classes)} classes leave no top-5 error, which the paper's tables show; add "
            "classes (6 or more), or accept tables without it with --no-top5"
        )
    if len(source.classes) < 2:
        raise InputError("prepare: a single class cannot be classified; give at least two")
    plan: dict[str, Any] = {"source": source.description, "preset": preset, "classes": list(source.classes)}
    if store_side:
        plan["store_side"] = store_side
    if source.val_only:
        plan["val_only"] = True
    return plan


def check_downloads(source: Source) -> None:
    """Compares downloaded files with their published MD5 sums.

    Raises:
        InputError: one differs, or none is published for this source.
    """
    known = source.checksums()
    if not known:
        raise InputError(f"prepare --verify: no published checksums for {source.description}; leave --verify out")
    for path, expected in known:
        with Track(f"verify {path.name}", path.stat().st_size >> 20, "MB") as track, path.open("rb") as file:
            digest = hashlib.md5(usedforsecurity=False)
            while part := file.read(8 << 20):
                digest.update(part)
                track.advance(len(part) >> 20)
        if digest.hexdigest() != expected:
            raise InputError(
                f"prepare --verify: {path} has MD5 {digest.hexdigest()}, the official file {expected}; download it "
                "again, or leave --verify out if it is a part on purpose"
            )
    say(f"prepare: {', '.join(path.name for path, _ in known)}: the official files")


def _already(folder: Path, plan: dict[str, Any]) -> Dataset | None:
    """The finished data set of the same plan, None if there is none, InputError if another is there."""
    if not (folder / DATASET_JSON).is_file():
        return None
    dataset = load(folder)
    values = read_json(folder / DATASET_JSON)
    was = values.get("plan", {}) | {"preset": dataset.preset}
    if was == plan:
        _account(values, folder)
        return dataset
    differs = _differences(was, plan)
    why = "its files have changed since" if differs == "contents" else f"differs in {differs}"
    raise InputError(
        f"{folder} already holds data set '{dataset.name}' ({was.get('source', '?')}, preset {dataset.preset}; "
        f"{why}); choose another folder with --to, or remove it"
    )


def _differences(was: dict[str, Any], plan: dict[str, Any]) -> str:
    return ", ".join(name for name in {**plan, **was} if was.get(name) != plan.get(name))


def _resume(folder: Path, plan: dict[str, Any]) -> dict[str, Any]:
    path = folder / STATE_JSON
    if path.is_file():
        state = read_json(path)
        if state.get("plan") == plan:
            state["shards"] = {name: record for name, record in state["shards"].items() if (folder / name).is_file()}
            return state
        if state.get("plan") == plan | {"contents": state.get("plan", {}).get("contents")}:
            say("prepare: the source's files have changed since the interruption; starting again")
            # Also a shard that was cut off or just finished, which `state` does not have.
            for path in folder.glob("*-[0-9][0-9][0-9][0-9][0-9].arrow*"):
                path.unlink()
        elif state.get("shards"):
            was = state.get("plan", {}).get("source", "?")
            raise InputError(
                f"{folder} holds an unfinished preparation of {was} (this one differs in "
                f"{_differences(state['plan'], plan)}); choose another folder with --to, or remove it"
            )
    state = {"plan": plan, "shards": {}}
    write_json(path, state)
    return state


def _write_split(
    source: Source,
    split: str,
    folder: Path,
    state: dict[str, Any],
    track: Track,
    skip_bad: bool,
    store_side: int,
    workers: int,
) -> None:
    """Writes the split's missing shards, one after another."""
    count = source.count(split)
    names = [f"{split}-{number:05}.arrow" for number in range(-(-count // SHARD_EXAMPLES))]
    first = next((number for number, name in enumerate(names) if name not in state["shards"]), len(names))
    examples = source.examples(split, first * SHARD_EXAMPLES)
    labels = range(-1 if split == "test" else 0, len(source.classes))
    measure = partial(_measure, labels=labels, store_side=store_side if split == "train" else 0)
    measured = ordered(measure, examples, workers, 16 * max(1, workers))
    for name in names[first:]:
        state["shards"][name] = _write_shard(folder / name, islice(measured, SHARD_EXAMPLES), skip_bad, track)
        write_json(folder / STATE_JSON, state)


def _measure(example: Example, labels: range, store_side: int) -> Measured:
    """Decodes an image; the example in the result holds the bytes to be stored.

    Raises:
        InputError: a label that is none of `labels`.
    """
    try:
        decoded = decode_new(example.data)
    except BadImage as error:
        return Measured(example, bad=str(error))
    if example.label not in labels:
        raise InputError(
            f"prepare: {example.place}: label {example.label} is outside the {labels.stop} classes; mend or remove it"
        )
    image = decoded.image
    mean, moment = colour_moments(np.asarray(image))
    if 0 < store_side < min(image.size):
        image = Image.fromarray(rescale(image, store_side))
        example = replace(example, data=_jpeg(image))
    digest = hashlib.sha256(example.data).hexdigest()
    return Measured(example, *image.size, mean, moment, digest, decoded.kind, decoded.orientation in TURNS)


def colour_moments(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (3,) and mean outer product (3, 3) of an image's pixels, uint8 (H, W, 3), exact in float64."""
    pixels = image.reshape(-1, 3)
    products = np.zeros((4, 4))
    for start in range(0, len(pixels), 16384):  # a few at a time: they stay in the processor's cache
        part = pixels[start : start + 16384]
        planes = np.ones((4, len(part)))  # the row of ones: one product holds the sums as well
        planes[:3] = part.T
        products += planes @ planes.T
    return products[:3, 3] / len(pixels), products[:3, :3] / len(pixels)


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **STORED)
    return file.getvalue()


def _write_shard(path: Path, examples: Iterator[Measured], skip_bad: bool, track: Track) -> dict[str, Any]:
    """Writes one shard and returns its record for the state file."""
    digest = hashlib.sha256()
    mean, moment = np.zeros(3), np.zeros((3, 3))
    bad: list[str] = []
    kinds: Counter[str] = Counter()
    rows = seen = size = turns = 0
    batch: list[Measured] = []
    with atomic(path) as temporary, Hashed(temporary) as file, pa.ipc.new_file(file, SCHEMA) as writer:
        for item in examples:
            seen += 1
            track.advance(1)
            if item.bad:
                if not skip_bad:
                    raise InputError(
                        f"prepare: {item.example.place} is no readable image ({item.bad}); mend or remove it, or "
                        "leave all such images out with --skip-bad"
                    )
                bad.append(f"{item.example.place} ({item.bad})")
                continue
            assert item.mean is not None and item.moment is not None
            rows, mean, moment = rows + 1, mean + item.mean, moment + item.moment
            kinds[item.kind] += 1
            turns += item.turned
            digest.update(json.dumps([item.example.key, item.example.label, item.sha256]).encode())
            batch.append(item)
            size += len(item.example.data)
            if len(batch) == BATCH_ROWS or size >= BATCH_BYTES:
                writer.write_batch(_record_batch(batch))
                batch, size = [], 0
        if batch:
            writer.write_batch(_record_batch(batch))
    return {
        "examples": seen,
        "rows": rows,
        "bad": bad,
        "kinds": dict(sorted(kinds.items())),
        "turned": turns,
        "digest": digest.hexdigest(),
        "sha256": file.hexdigest(),
        "mean": mean.tolist(),
        "moment": moment.tolist(),
    }


def _record_batch(items: list[Measured]) -> pa.RecordBatch:
    columns = [
        [item.example.key for item in items],
        [item.example.label for item in items],
        [item.example.data for item in items],
        [item.width for item in items],
        [item.height for item in items],
    ]
    arrays = [pa.array(values, field.type) for values, field in zip(columns, SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _finish(source: Source, folder: Path, state: dict[str, Any], splits: list[str]) -> Dataset:
    shards: dict[str, dict[str, Any]] = dict(sorted(state["shards"].items()))
    counts = {"train": 0} | {
        s: sum(r["rows"] for name, r in shards.items() if name.startswith(f"{s}-")) for s in splits
    }
    bad = [line for record in shards.values() for line in record["bad"]]
    for split in source.required:
        if not counts[split]:
            raise InputError(f"prepare: {split} has no readable image; the paper's method needs some")
        if not source.subset:
            _check_classes(folder, split, source.classes)
    measured = source.required[0]
    records = [record for name, record in shards.items() if name.startswith(f"{measured}-")]
    mean = np.sum([record["mean"] for record in records], axis=0) / counts[measured]
    moment = np.sum([record["moment"] for record in records], axis=0) / counts[measured]
    values, vectors = principal_axes(moment - np.outer(mean, mean))
    content = json.dumps([list(source.classes), [record["digest"] for record in shards.values()]])
    kinds: dict[str, Counter[str]] = {split: Counter() for split in splits}
    turns: Counter[str] = Counter()
    for name, record in shards.items():
        split = name.split("-")[0]
        kinds[split].update(record["kinds"])
        turns[split] += record.get("turned", 0)  # absent in a preparation that an older version began
    about: dict[str, Any] = {
        "name": source.name,
        "version": DATASET_VERSION,
        "preset": state["plan"]["preset"],
        "classes": list(source.classes),
        "counts": counts,
        "mean_rgb": mean.tolist(),
        "rgb_eigenvectors": vectors.tolist(),
        "rgb_eigenvalues": values.tolist(),
        "statistics": measured,
        "fingerprint": hashlib.sha256(content.encode()).hexdigest(),
        "subset": source.subset,
        "words": [word or name for word, name in zip(source.words or source.classes, source.classes, strict=True)],
        "devkit_ids": list(source.devkit_ids),
        "store_side": state["plan"].get("store_side", 0),
        "stored_as": STORED if state["plan"].get("store_side") else "original files",
        "kinds": {split: dict(sorted(found.items())) for split, found in kinds.items()},
        "turned": dict(turns),
        "bad": bad,
        "left_out": source.left_out(),
        "shards": {name: {"rows": record["rows"], "sha256": record["sha256"]} for name, record in shards.items()},
        "plan": state["plan"],
    }
    write_json(folder / DATASET_JSON, about)
    (folder / STATE_JSON).unlink()
    dataset = load(folder)
    _advise(dataset)
    _account(about, folder)
    return dataset


def _account(about: dict[str, Any], folder: Path) -> None:
    """Says how many images have an EXIF orientation, names some unreadable images, and counts all that was left out."""
    if text := turned(about):
        say(f"prepare: {text}")
    bad = about.get("bad", [])
    for line in bad[:10]:
        say(f"  {line}")
    say(f"prepare: {left_out(about)}" + (f" (listed in {folder / DATASET_JSON})" if bad else ""))


def _advise(dataset: Dataset) -> None:
    """Warns if the images are far smaller than the preset's scales: mostly, --preset was forgotten."""
    split = Split(dataset, dataset.statistics)
    shorter = int(np.median(np.minimum(split.widths, split.heights)))
    needs = {name: real_pixels(S256.high, recipe.load(name).crop) for name in recipe.PRESETS}
    needed = needs[dataset.preset]
    if 2 * shorter < needed:
        fitting = next((name for name in ("half", "quarter") if needs[name] <= shorter), "eighth")
        advice = f"; --preset {fitting} takes {needs[fitting]}" if needs[fitting] < needed else ""
        kind = "training" if dataset.trainable else "validation"
        say(
            f"note: half of the {kind} images have a shorter side of {shorter} pixels or less; S = 256 of preset "
            f"{dataset.preset} enlarges them to {needed}{advice}"
        )


def _check_classes(folder: Path, split: str, classes: tuple[str, ...]) -> None:
    """Refuses a split that has no readable image of some class."""
    images = np.zeros(len(classes), dtype=np.int64)
    for path in folder.glob(f"{split}-*.arrow"):
        for rows in read_shard(path):
            images += np.bincount(rows["label"].to_numpy(), minlength=len(classes))
    if not images.all():
        empty = classes[int(images.argmin())]
        raise InputError(f"prepare: {split} has no readable image of class '{empty}'; add one or remove the class")


def principal_axes(covariance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (3,), largest first, and unit eigenvectors as rows (3, 3) of a symmetric (3, 3) matrix.

    The sign of a vector, which is arbitrary, is such that its largest component is positive.
    """
    values, columns = np.linalg.eigh(covariance)
    vectors = columns.T[::-1]
    largest = np.take_along_axis(vectors, np.abs(vectors).argmax(1, keepdims=True), axis=1)
    return values[::-1], vectors * np.sign(largest)
