"""The 1000 classes of ILSVRC-2012: wnids, numbers in the devkit, names for people; and what image names tell.

The table is the devkit's `meta.mat`, sorted by wnid: a class's index is its row.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import NamedTuple

from vggrepro.errors import InputError

TRAIN_IMAGES = 1_281_167
VAL_IMAGES = 50_000
WNID = re.compile(r"n\d{8}", re.ASCII)

# Class indices of the first validation images, over wnids in sorted order.
FIRST_IMAGES = {1: 65, 2: 970, 3: 230, 4: 809}

_VAL = re.compile(r"ILSVRC2012_val_(\d{8})(?:_(n\d{8}))?(?:\.\w+)?", re.ASCII)


class Synset(NamedTuple):
    """A class."""

    id: int  # ILSVRC2012_ID, 1 to 1000: its number in the ground truth and in submissions
    wnid: str
    words: str


@cache
def table() -> dict[str, Synset]:
    """The classes by wnid, in the order of their indices."""
    with Path(__file__).with_name("synsets.csv").open(encoding="utf-8", newline="") as file:
        return {row["wnid"]: Synset(int(row["id"]), row["wnid"], row["words"]) for row in csv.DictReader(file)}


def words(classes: Iterable[str]) -> tuple[str, ...]:
    """A name for people for each class, empty where the class is no wnid of ILSVRC-2012."""
    known = table()
    return tuple(known[name].words if name in known else "" for name in classes)


def devkit_ids(classes: Iterable[str]) -> tuple[int, ...]:
    """Each class's ILSVRC2012_ID; empty unless the classes are ILSVRC-2012's, in any order."""
    known, names = table(), tuple(classes)
    return tuple(known[name].id for name in names) if set(names) == known.keys() else ()


def val_number(name: str) -> int | None:
    """The number of a validation image, by which the ground truth is ordered; None for other file names.

    Hugging Face's copies carry the wnid after it: `ILSVRC2012_val_00000001_n01751748.JPEG`.
    """
    match = _VAL.fullmatch(name)
    return int(match[1]) if match else None


def val_wnid(name: str) -> str | None:
    """The wnid in a validation image's name, "" if there is none; None for other file names."""
    match = _VAL.fullmatch(name)
    return match[2] or "" if match else None


def one_to_one(pairs: Iterable[tuple[int, str | None]]) -> dict[int, str]:
    """The wnid of each label, from the label and the wnid of many images; empty unless one goes with one."""
    found: dict[int, str] = {}
    for label, wnid in pairs:
        if wnid is None or found.setdefault(label, wnid) != wnid:
            return {}
    return found if len({*found.values()}) == len(found) else {}


def is_validation(pairs: Iterable[tuple[int, str | None]], first: Mapping[int, int]) -> bool:
    """Whether images are validation images of ILSVRC-2012 and their labels are indices over sorted wnids.

    Args:
        pairs: the label of each image and what `val_wnid` reads in its name.
        first: labels of those of the first four validation images that are there, by their numbers. Where no name
            holds a wnid, these four tell the order.
    """
    known, told = tuple(table()), False
    for label, wnid in pairs:
        if wnid is None or label not in range(len(known)) or wnid not in ("", known[label]):
            return False
        told = told or bool(wnid)
    return told or first == FIRST_IMAGES


def subset(train: int | None, val: int) -> str:
    """Describes a subset of ILSVRC-2012 by its numbers of images; empty for the full set. `train` None: val only."""
    if train is None:
        return "" if val == VAL_IMAGES else f"{val:,} of {VAL_IMAGES:,} validation images"
    if (train, val) == (TRAIN_IMAGES, VAL_IMAGES):
        return ""
    return f"{train:,} of {TRAIN_IMAGES:,} training and {val:,} of {VAL_IMAGES:,} validation images"


def check_first_images(found: Mapping[int, int], place: str) -> None:
    """Refuses labels of the full validation set that are not indices over sorted wnids.

    Args:
        found: class index by validation image number; only the first four images matter, if they are among them.
        place: where the labels come from.

    Raises:
        InputError: an index differs, as with devkit ids taken for indices, or the ground truth of another year.
    """
    for number, expected in FIRST_IMAGES.items():
        if found.get(number, expected) != expected:
            raise InputError(
                f"prepare: {place}: ILSVRC2012_val_{number:08} has class index {found[number]}, not {expected}; these "
                "are not ILSVRC-2012's labels in the order of wnids: take the labels of its own devkit"
            )
