"""WebDataset: tars named by split, in which an image and its label are neighbours of the same name.

A member's name up to its first dot tells the sample, the rest the part: `n01440764_10026.jpg`, `n01440764_10026.cls`.
The tars are read in place; what stays in memory is an image's name, offset, size and label, in arrays.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO

import numpy as np

from vggrepro.data import synsets
from vggrepro.data.sources.archives import Members, members
from vggrepro.data.sources.base import (
    IMAGE_SUFFIXES,
    TRAIN_NAMES,
    VAL_NAMES,
    Example,
    LeftOut,
    Source,
    digest,
    is_hidden,
    some,
)
from vggrepro.data.sources.sharded import class_table, text_lines, usable_splits
from vggrepro.errors import InputError
from vggrepro.system.progress import Track

SPLITS = {"train": TRAIN_NAMES, "val": VAL_NAMES, "test": ("test", "testing")}
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")
NAME_LISTS = ("classes.txt", "classnames.txt", "labels.txt")
LONGEST_LABEL = 1 << 20  # bytes of a .cls or .json member: more is something else

_MEMBER = re.compile(r"(?P<stem>(?:.*/)?[^./]+)\.(?P<part>[^/]+)", re.DOTALL)
_META = re.compile(r"(?:.*/)?__[^/]*__(?:[./].*)?", re.DOTALL)  # WebDataset's own notes, such as `__shard__.json`
_WNID = re.compile(rb"(?:.*/)?(n\d{8})_")


@dataclass(frozen=True, slots=True)
class Shard:
    """The samples of one tar."""

    images: Members
    labels: np.ndarray  # (n,) int32, -1: none

    def __len__(self) -> int:
        return len(self.labels)


class WebDatasetSource(Source):
    """WebDataset tars: an image (`.jpg`, `.png` …) and its class number (`.cls`, or "label" in `.json`) are one sample.

    A tar's split is a word of its name (`train-0000.tar`, `imagenet1k-validation-00.tar`) or its folder's name.
    Without a validation split, `test` serves as one; beside one, test images need no label. Classes are named by
    `classes.txt` (a name on each line) or `classes.tsv` (label, wnid, words) in the folder, by the wnids with which all
    training keys start, or by their numbers. `val_only` asks for validation tars alone; ImageNet's are known by names
    and labels of the first images.
    """

    layout = "a folder of WebDataset tars (train-0000.tar …, val-0000.tar …)"

    @classmethod
    def recognises(cls, folder: Path, val_only: bool = False) -> bool:
        return any(_split_of(path, folder) for path in _tars(folder))

    def __init__(self, folder: Path, *, val_only: bool = False) -> None:
        self.folder = folder.resolve()
        self.val_only = val_only
        self.name = self.folder.name
        self.description = f"WebDataset tars {self.folder}"
        self._left = LeftOut()
        files = self._find_files()
        listed = self._listed_names()
        with Track(f"index {self.name}", sum(map(len, files.values())), "tars") as track:
            self.shards: dict[str, list[Shard]] = {split: [] for split in files}
            for split, path in ((split, path) for split, paths in files.items() for path in paths):
                self.shards[split].append(_index(path, self._left, labelled=split != "test"))
                track.advance(1)
        if val_only and self._is_imagenets():
            listed = list(synsets.table()), [synset.words for synset in synsets.table().values()]
            self.name, self.subset = "imagenet", synsets.subset(None, self.count("val"))
            self.devkit_ids = synsets.devkit_ids(listed[0])
        self._check_labels(len(listed[0]) if listed else None)
        self.classes, self.words = self._class_names(listed)
        if not self.subset:
            self._check_classes()
        self._distinct = {split: _distinct(shards) for split, shards in self.shards.items()}

    def _find_files(self) -> dict[str, list[Path]]:
        splits: dict[str, list[Path]] = {split: [] for split in SPLITS}
        tars = _tars(self.folder)
        for path in tars:
            if not (split := _split_of(path, self.folder)):
                self._left.others["tars of no split"] += 1
            else:
                if path.name.endswith(COMPRESSED):
                    raise InputError(f"prepare: {path} is compressed, which leaves no random access; gunzip it first")
                splits[split].append(path)
        naming = "names contain their split, such as train-0000.tar"
        return usable_splits(splits, self.required, self.folder, "tars", [path.name for path in tars], naming)

    def _is_imagenets(self) -> bool:
        """Whether val is ImageNet's or a part of it: names say so, and by wnids or first images its order is known."""
        named = [
            (shard.images.name(row).rpartition("/")[2], label)
            for shard in self.shards["val"]
            for row, label in enumerate(shard.labels.tolist())
        ]
        numbers = {synsets.val_number(name): label for name, label in named}
        first = {number: numbers[number] for number in synsets.FIRST_IMAGES if number in numbers}
        return synsets.is_validation(((label, synsets.val_wnid(name)) for name, label in named), first)

    def _listed_names(self) -> tuple[list[str], list[str]] | None:
        """Class names and words (maybe none) from a file in the folder, in the order of labels."""
        for path in (self.folder / name for name in NAME_LISTS):
            if path.is_file():
                return text_lines(path), []
        rows = class_table(self.folder)
        return ([name for name, _ in rows], [words for _, words in rows]) if rows else None

    def _check_labels(self, classes: int | None) -> None:
        """Refuses labels outside the `classes` that are listed or, without a list, gaps in those of train."""
        own = self.required[0]
        for split in self.required:
            if not self.count(split):
                raise InputError(f"prepare: {self.folder}: its {split} tars hold no sample; download them again")
        if classes is None:
            present = np.unique(_labels(self.shards[own]))
            present = present[present >= 0]  # a negative one is reported below
            gaps = np.flatnonzero(present != np.arange(len(present)))
            if len(gaps):
                raise InputError(
                    f"prepare: {self.folder}: {own} has no image of label {gaps[0]} but some of {present[-1]}; "
                    "number the classes from 0 without gaps, or list them all in classes.txt"
                )
            classes = len(present)
        for split, shards in self.shards.items():
            for shard in shards:
                low = -1 if split == "test" else 0
                wrong = np.flatnonzero((shard.labels < low) | (shard.labels >= classes))
                if len(wrong):
                    raise InputError(
                        f"prepare: {shard.images.path}: label {shard.labels[wrong[0]]} of "
                        f"{shard.images.name(wrong[0])!r} is outside the {classes} classes; mend or remove the sample"
                    )

    def _class_names(self, listed: tuple[list[str], list[str]] | None) -> tuple[tuple[str, ...], tuple[str, ...]]:
        own = self.shards[self.required[0]]
        wnids = _wnids(own)
        if listed:
            names, words = listed
        else:
            names, words = [str(label) for label in np.unique(_labels(own))], []
        if wnids and not any(_WNID.fullmatch(f"{name}_".encode()) for name in names):
            names, words = [wnids.get(label, name) for label, name in enumerate(names)], names if listed else []
        for split in self.required:
            found = _wnids(self.shards[split])
            for label, wnid in sorted(found.items() if wnids else ()):
                if names[label] != wnid:
                    raise InputError(
                        f"prepare: {self.folder}: label {label} is {wnid} in the names of {split}, but class "
                        f"{names[label]}; write the tars again with one numbering"
                    )
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise InputError(f"prepare: {self.folder}: class names that come twice: {some(twice)}; make them distinct")
        return tuple(names), tuple(words)

    def _check_classes(self) -> None:
        for split in self.required:
            count = np.bincount(_labels(self.shards[split]), minlength=len(self.classes))
            empty = [name for label, name in enumerate(self.classes) if not count[label]]
            if empty:
                raise InputError(f"prepare: {self.folder}: {split} has no image of class {some(empty)}; add one")

    def contents(self) -> str:
        paths = [shard.images.path for shards in self.shards.values() for shard in shards]
        return digest((str(path.relative_to(self.folder)), path.stat().st_size) for path in paths)

    def left_out(self) -> dict[str, int]:
        return self._left.reasons()

    def count(self, split: str) -> int:
        return sum(map(len, self.shards.get(split, ())))

    def examples(self, split: str, start: int) -> Iterator[Example]:
        for shard in self.shards[split]:
            path = shard.images.path
            prefix = "" if self._distinct[split] else f"{path.relative_to(self.folder).as_posix()}/"
            if start < len(shard):
                with path.open("rb") as file:
                    for row in range(start, len(shard)):
                        name = shard.images.name(row)
                        key = prefix + name.removeprefix("./")
                        data = shard.images.read(file, row)
                        yield Example(key, data, int(shard.labels[row]), f"{path} member {name!r}")
            start = max(0, start - len(shard))


def _tars(folder: Path) -> list[Path]:
    """Tars in a folder and its folders; no deeper, where a million images may lie."""
    found = chain(folder.glob("*.t*"), folder.glob("*/*.t*"))
    named = (path for path in found if path.name.endswith((".tar", *COMPRESSED)))
    return sorted(path for path in named if not is_hidden(path.name) and not is_hidden(path.parent.name))


def _split_of(path: Path, folder: Path) -> str:
    """The split that a tar's folder or a word of its name says, "" if none."""
    words = [path.parent.name] if path.parent != folder else []
    if not path.name.startswith("ILSVRC2012_"):  # the official tars are no WebDataset
        words += re.split(r"[-_.]", path.name)
    return next((split for word in words for split, names in SPLITS.items() if word.lower() in names), "")


def _index(path: Path, left: LeftOut, labelled: bool) -> Shard:
    """Where a tar's images are, and their labels, which `labelled` demands; `left` counts files of no sample."""
    held = members(path)
    rows: list[int] = []
    labels: list[int] = []
    with path.open("rb") as file:
        for stem, parts in _samples(held, left):
            images = [row for part, row in parts.items() if f".{part}" in IMAGE_SUFFIXES]
            if len(images) != 1:
                _check_together(held, stem, parts)
                raise InputError(
                    f"prepare: {path}: sample {stem!r} has {len(images) or 'no'} images among its parts "
                    f"{some(sorted(parts))}; give it one (names are parted at their first dot)"
                )
            label = _label(held, file, stem, parts)
            if label is None and labelled:
                _check_together(held, stem, parts)
                raise InputError(
                    f"prepare: {path}: sample {stem!r} has no label; add {stem}.cls with the class number, or "
                    f"{stem}.json with a 'label'"
                )
            rows.append(images[0])
            labels.append(-1 if label is None else label)
    shard = Shard(held.select(np.array(rows, dtype=np.int64)), np.array(labels, dtype=np.int32))
    if not _distinct([shard]):
        names, counts = np.unique(shard.images.names, return_counts=True)
        raise _twice(path, bytes(names[counts > 1][0]).decode("utf-8", "backslashreplace"))
    return shard


def _samples(held: Members, left: LeftOut) -> Iterator[tuple[str, dict[str, int]]]:
    """Neighbours of one stem: the stem, and the row of each part, such as `jpg`, `cls`."""
    current, parts = "", dict[str, int]()
    for row in range(len(held)):
        name = held.name(row)
        match = _MEMBER.fullmatch(name)
        if is_hidden(name.rpartition("/")[2]) or _META.fullmatch(name):
            left.hidden += 1
            continue
        if match is None:
            left.suffixes["no suffix"] += 1
            continue
        stem, part = match["stem"], match["part"].lower()
        if stem != current:
            if parts:
                yield current, parts
            current, parts = stem, {}
        if part in parts:
            raise _twice(held.path, name)
        parts[part] = row
    if parts:
        yield current, parts


def _check_together(held: Members, stem: str, parts: dict[str, int]) -> None:
    """Refuses a sample without image or label if more of its files lie elsewhere in the tar."""
    if np.char.startswith(held.names, f"{stem}.".encode()).sum() > len(parts):
        raise InputError(
            f"prepare: {held.path}: the files of sample {stem!r} lie apart, but a sample's files must be neighbours; "
            "sort them: unpack the tar into a folder of its own and pack it again with 'tar --sort=name -cf NEW.tar -C "
            "FOLDER .'"
        )


def _twice(path: Path, name: str) -> InputError:
    return InputError(f"prepare: {path}: member {name!r} is there twice; give each sample a name of its own")


def _label(held: Members, file: IO[bytes], stem: str, parts: dict[str, int]) -> int | None:
    """The class number of a sample, None if it has none."""
    row = parts.get("cls", parts.get("json"))
    if row is None:
        return None
    data = held.read(file, row) if held.sizes[row] <= LONGEST_LABEL else b""
    if "cls" in parts:
        text = data.decode("latin-1").strip()
    else:
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            raise InputError(f"prepare: {held.path}: {held.name(row)!r} is no JSON; write the tar again") from None
        if not isinstance(value, dict) or value.get("label") is None:
            return None
        text = str(value["label"])
    if not re.fullmatch(r"-?[0-9]{1,9}", text):
        raise InputError(f"prepare: {held.path}: label {text[:40]!r} of sample {stem!r} is no class number")
    return int(text)


def _labels(shards: list[Shard]) -> np.ndarray:
    return np.concatenate([shard.labels for shard in shards])


def _distinct(shards: list[Shard]) -> bool:
    names = np.concatenate([shard.images.names for shard in shards])
    return len(np.unique(names)) == len(names)


def _wnids(shards: list[Shard]) -> dict[int, str]:
    """Each label's wnid where all names start with one and the two correspond one to one, else nothing."""
    named = (pair for shard in shards for pair in zip(shard.labels.tolist(), shard.images.names, strict=True))
    return synsets.one_to_one(
        (label, match[1].decode() if (match := _WNID.match(name)) else None) for label, name in named
    )
